import { setTimeout as delay } from 'node:timers/promises'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { EmbeddedBroker } from '../broker/embedded/embedded.js'
import type { MessageSink } from '../broker/embedded/message-sink.js'
import { type Event, gapMarker } from '../journal/event.js'
import { type Journal, sizeOf, type Urgency } from '../journal/journal.js'
import type { Message } from '../mqtt/message.js'
import { requirePublishable } from '../mqtt/publishable.js'
import { topicPredicate } from '../topics/match.js'
import { JournalWriter } from './journal-writer.js'
import { PublishQuota } from './publish-quota.js'
import { type PublishOptions, usualPublishTime } from './publisher.js'
import type { RememberedSubscriptions } from './remembered-subscriptions.js'
import { isDigestOf, readDigests } from './retained-digests.js'
import type { Source } from './source.js'

/** What a source needs. */
export interface EmbeddedSourceOptions {
  readonly broker: Pick<EmbeddedBroker, 'attach' | 'publish' | 'retained'>
  readonly journal: Journal
  /** Valid topic filters: which messages are appended. */
  readonly topics: readonly string[]
  /** Notes over a restart that the journal has all that was acknowledged. */
  readonly remembered: RememberedSubscriptions
  /** The largest MQTT packet that the broker takes, in bytes. */
  readonly packetSize?: number | undefined
  /** For how long acknowledgements wait for a journal that takes nothing, in milliseconds. Default: 5000. */
  readonly patience?: number | undefined
  /** How long a publish may take until it is in the journal, in milliseconds. Default: `usualPublishTime`. */
  readonly publishTimeout?: number | undefined
  readonly log: Logger
}

/** Publishes in progress at once, and their bytes. */
const quota = { maxCount: 10_000, maxBytes: 64 * 1024 ** 2 }
const defaultPatience = 5000
/** Topics whose retained message changed while the broker's retained messages are compared with the journal's. */
const maxChanged = 100_000
/** How long `close` waits for publishes in progress, in milliseconds. */
const lastPatience = 1000

type OnAppended = (event: Event | undefined) => void

/**
 * Appends the messages of the built-in broker to the journal, inside the process, and publishes there.
 *
 * Acknowledgements wait until the journal has their messages. A journal that takes nothing holds them back for `patience`; from then on,
 * messages are acknowledged at once, and a gap is appended where some of them did not fit into the queue before the journal.
 */
export async function openEmbeddedSource(options: EmbeddedSourceOptions): Promise<Source> {
  const source = new EmbeddedSource(options)
  await source.start()
  return source
}

class EmbeddedSource implements Source {
  readonly #options: EmbeddedSourceOptions
  readonly #matches: (topic: string) => boolean
  readonly #writer: JournalWriter
  readonly #quota = new PublishQuota(quota)
  readonly #patience: number
  readonly #sink: MessageSink
  #attached: ReturnType<EmbeddedBroker['attach']> | undefined
  /** Acknowledgements that wait, in order. */
  readonly #held = new Set<() => void>()
  /**
   * Whether acknowledgements wait for the journal. `lapsing`: they are about to wait no longer, and it is noted that the journal may lack
   * messages.
   */
  #state: 'holding' | 'lapsing' | 'lapsed' = 'holding'
  #isPressed = false
  /** Whether messages were dropped since the journal took the last one. */
  #hasDropped = false
  /** Whether the note says that the journal may lack messages. */
  #isNoted = false
  /** When the journal took a message, or the first of those that wait came, in milliseconds. */
  #progress = 0
  #timer: NodeJS.Timeout | undefined
  /** Topics whose retained message changed since the comparison began; `undefined` where none runs. */
  #changed: Set<string> | undefined
  readonly #pending = new Set<(error: GatewayError) => void>()
  readonly #onDrained: (() => void)[] = []
  readonly #onRoom: (() => void)[] = []
  #forgetting: Promise<void> | undefined
  #closing: Promise<void> | undefined
  /** Whether no more messages are appended. */
  #isClosed = false

  constructor(options: EmbeddedSourceOptions) {
    this.#options = options
    this.#patience = options.patience ?? defaultPatience
    this.#matches = topicPredicate(options.topics)
    const { journal, log } = options
    this.#writer = new JournalWriter({
      journal,
      log,
      maxMessageWeight: 256 * 1024,
      onPressure: isHigh => this.#onPressure(isHigh),
      onDrained: () => {
        for (const listener of this.#onDrained.splice(0)) listener()
      },
    })
    const isFull = (): boolean => this.#isPressed && this.#state !== 'lapsed' && !this.#isClosed
    this.#sink = {
      get isFull() {
        return isFull()
      },
      append: (message, isAwaited) => {
        if (!this.#matches(message.topic)) return undefined
        return this.#append(message, isAwaited ? 'now' : 'at leisure', isAwaited ? ignore : undefined)
      },
    }
  }

  get ready(): boolean {
    return this.#closing === undefined
  }

  get connected(): boolean {
    return this.ready
  }

  get failure(): string | undefined {
    return this.ready ? undefined : 'the gateway is shutting down'
  }

  /** Attaches to the broker, and appends what the broker retains and the journal does not have. */
  async start(): Promise<void> {
    const { journal, remembered, broker } = this.#options
    const isWhole = journal.head === 0 || (await remembered.load()) !== undefined
    if (!isWhole) this.#writer.write(gapMarker, 'now', ignore)
    this.#attached = broker.attach(this.#sink)
    await this.#compareRetained()
    this.#rememberWhenWritten()
  }

  async publish(message: Message, { by, patience = 0 }: PublishOptions = {}): Promise<Event | undefined> {
    const { broker, packetSize, publishTimeout = usualPublishTime } = this.#options
    requirePublishable(message, packetSize)
    if (!this.ready) throw new GatewayError('broker-away', { hint: 'the gateway is shutting down' })
    const isKept = this.#matches(message.topic)
    if (isKept && this.#writer.stuck) throw new GatewayError('journal-unavailable')
    const size = sizeOf(message)
    this.#quota.take(by, size)
    const published = new Promise<Event | undefined>((resolve, reject) => {
      const onAppended: OnAppended = event => {
        if (event) resolve(event)
        else reject(new GatewayError('publish-timeout'))
      }
      const append: MessageSink['append'] = accepted => (isKept ? this.#append(accepted, 'now', onAppended) : undefined)
      broker.publish(message, by, append).then(
        () => {
          if (!isKept) resolve(undefined)
        },
        cause => reject(new GatewayError('broker-away', { hint: 'it could not store the message', cause })),
      )
    })
    const giveBack = (): void => this.#quota.giveBack(by, size)
    published.then(giveBack, giveBack)
    return this.#inTime(published, publishTimeout + patience)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    const { log } = this.#options
    // What was published by now is appended, and whoever published it gets an answer.
    const isDone = this.#bringLast().then(() => true)
    const isWhole = await Promise.race([isDone, delay(this.#writer.stuck ? 0 : lastPatience, false, { ref: false })])
    this.#isClosed = true
    if (!isWhole) {
      log.warn('the journal does not take the last messages')
      await this.#lapse()
    }
    this.#release()
    this.#resume()
    clearTimeout(this.#timer)
    this.#writer.close()
    for (const fail of this.#pending) fail(new GatewayError('publish-timeout'))
  }

  async #bringLast(): Promise<void> {
    await this.#attached?.idle()
    await this.#drained()
  }

  /**
   * Appends a message in order.
   *
   * @param onAppended called with the event, or without where the message was dropped; left out where nobody waits
   * @returns resolves when the message may be acknowledged; `undefined` where nobody waits, or acknowledgements do not wait for the journal
   */
  #append(message: Message, urgency: Urgency, onAppended?: OnAppended): Promise<void> | undefined {
    if (this.#isClosed) {
      onAppended?.(undefined)
      // The next start is to know that this one is missing.
      return this.#forget()
    }
    if (message.retain) this.#noteChange(message.topic)
    return this.#write(message, urgency, onAppended)
  }

  #write(message: Message, urgency: Urgency, onAppended?: OnAppended): Promise<void> | undefined {
    if (this.#state === 'lapsed' && (this.#hasDropped || this.#isPressed)) {
      this.#hasDropped = true
      onAppended?.(undefined)
      return undefined
    }
    this.#watch()
    if (!onAppended || this.#state === 'lapsed') {
      this.#writer.write(message, urgency, event => {
        this.#progressed()
        onAppended?.(event)
      })
      return undefined
    }
    return new Promise(release => {
      this.#held.add(release)
      this.#writer.write(message, urgency, event => {
        this.#progressed()
        onAppended(event)
        if (this.#held.delete(release)) release()
      })
    })
  }

  #progressed(): void {
    this.#progress = performance.now()
    if (this.#state !== 'lapsed') return
    this.#state = 'holding'
    const hasDropped = this.#hasDropped
    this.#hasDropped = false
    if (hasDropped) this.#writer.write(gapMarker, 'now', ignore)
    this.#rememberWhenWritten()
    if (hasDropped) void this.#compareRetained()
  }

  /** Sees to it that a journal that takes nothing is noticed. */
  #watch(): void {
    if (this.#writer.drained) this.#progress = performance.now()
    if (this.#timer) return
    this.#timer = setTimeout(() => this.#look(), this.#patience).unref()
  }

  #look(): void {
    this.#timer = undefined
    if (this.#writer.drained || this.#state !== 'holding') return
    const left = this.#progress + this.#patience - performance.now()
    if (left <= 0) void this.#lapse()
    else this.#timer = setTimeout(() => this.#look(), left).unref()
  }

  /** Holds acknowledgements back no longer; not before it is noted, for the next start, that messages may be missing. */
  async #lapse(): Promise<void> {
    if (this.#state !== 'holding') return
    this.#state = 'lapsing'
    this.#options.log.warn(
      'messages are acknowledged that are not in the journal; where that loses any, subscribers are told of a gap',
    )
    await this.#forget()
    this.#state = 'lapsed'
    this.#release()
    if (this.#writer.drained) this.#progressed()
    this.#resume()
  }

  /** Notes that the journal may lack messages. */
  #forget(): Promise<void> {
    this.#isNoted = false
    const { remembered, log } = this.#options
    this.#forgetting ??= remembered
      .forget()
      .catch(error => {
        log.error({ err: error }, 'that messages may be missing cannot be written down; a restart would not tell of it')
      })
      .finally(() => {
        if (!this.#isClosed) this.#forgetting = undefined
      })
    return this.#forgetting
  }

  #release(): void {
    for (const release of this.#held) release()
    this.#held.clear()
  }

  #rememberWhenWritten(): void {
    this.#writer.whenWritten(() => {
      if (this.#state === 'holding') void this.#remember()
    })
  }

  async #remember(): Promise<void> {
    if (this.#isNoted || this.#isClosed) return
    this.#isNoted = true
    const { remembered, topics, log } = this.#options
    await remembered.save({ clientId: '', dialect: 'embedded', topics }).catch(error => {
      log.warn({ err: error }, 'push’s state cannot be written down; subscribers are told of a gap after a restart')
    })
  }

  /** Appends the retained messages of the broker that the journal does not have: those of an earlier configuration, or after a gap. */
  async #compareRetained(): Promise<void> {
    const { broker, journal, topics, log } = this.#options
    const changed = new Set<string>()
    this.#changed = changed
    try {
      const known = await readDigests(journal, topics).catch(error => {
        log.warn({ err: error }, 'the journal cannot tell what is retained; all of it becomes events once more')
        return new Map<string, string>()
      })
      for await (const messages of broker.retained(topics)) {
        for (const message of messages) {
          if (!this.ready || changed.size >= maxChanged) return
          const { topic, payload } = message
          if (changed.has(topic) || !this.#matches(topic) || isDigestOf(known.get(topic), payload)) continue
          // Not `#append`, which would take it for a change.
          this.#write(message, 'now')
        }
        await this.#room()
      }
    } catch (error) {
      log.warn({ err: error }, 'push cannot compare what the broker retains; newcomers may get a state that has passed')
    } finally {
      if (this.#changed === changed) this.#changed = undefined
    }
  }

  #noteChange(topic: string): void {
    if (this.#changed && this.#changed.size < maxChanged) this.#changed.add(topic)
  }

  #drained(): Promise<void> {
    if (this.#writer.drained) return Promise.resolve()
    return new Promise(resolve => this.#onDrained.push(resolve))
  }

  /** Resolves when messages need not wait for the journal any more. */
  #room(): Promise<void> {
    if (!this.#sink.isFull) return Promise.resolve()
    return new Promise(resolve => this.#onRoom.push(resolve))
  }

  #onPressure(isHigh: boolean): void {
    this.#isPressed = isHigh
    if (!isHigh) this.#resume()
  }

  #resume(): void {
    this.#attached?.resume()
    for (const listener of this.#onRoom.splice(0)) listener()
  }

  /** @throws {Ending} rejects with `publish-timeout` when the time is over */
  #inTime<T>(promise: Promise<T>, time: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer)
        this.#pending.delete(reject)
      }
      const timer = setTimeout(() => {
        settle()
        reject(new GatewayError('publish-timeout'))
      }, time)
      this.#pending.add(reject)
      promise.then(resolve, reject).finally(settle)
    })
  }
}

function ignore(): void {}
