import { setTimeout as delay } from 'node:timers/promises'
import { GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { EmbeddedBroker } from '../broker/embedded/embedded.js'
import type { MessageSink } from '../broker/embedded/message-sink.js'
import { type Event, gapMarker } from '../journal/event.js'
import { type Journal, sizeOf, type Urgency } from '../journal/journal.js'
import { type Message, requirePublishable } from '../mqtt/message.js'
import { topicPredicate } from '../topics/match.js'
import { isResponseTopic } from '../topics/response-topic.js'
import { JournalWriter } from './journal-writer.js'
import { PublishQuota } from './publish-quota.js'
import { defaultPublishTimeout, type PublishOptions, type Source } from './publisher.js'
import type { RememberedSubscriptions } from './remembered-subscriptions.js'
import { type ResponseInbox, unretainedResponse } from './response-inbox.js'
import { isDigestOf, readDigests } from './retained-digests.js'

export interface EmbeddedSourceOptions {
  readonly broker: Pick<EmbeddedBroker, 'attach' | 'publish' | 'retained'>
  readonly journal: Journal
  /** Valid topic filters of the messages that are appended. */
  readonly topics: readonly string[]
  /** Stores that the journal has every acknowledged message. */
  readonly remembered: RememberedSubscriptions
  /** Gets responses to requests; left out without any. */
  readonly inbox?: ResponseInbox | undefined
  /** The largest MQTT packet that the broker takes, in bytes. */
  readonly packetSize?: number | undefined
  /** How long acknowledgements wait for a journal that accepts nothing, in milliseconds. Default: 5000. */
  readonly ackTimeout?: number | undefined
  /** Time limit from a publish to its event in the journal, in milliseconds. Default: `defaultPublishTimeout`. */
  readonly publishTimeout?: number | undefined
  readonly log: Logger
}

/** Publishes in progress at once, and their bytes. */
const quota = { maxCount: 10_000, maxBytes: 64 * 1024 ** 2 }
const defaultAckTimeout = 5000
/** Topics remembered as changed during a comparison of retained messages. */
const maxChanged = 100_000
/** How long `close` waits for publishes in progress, in milliseconds. */
const closeTimeout = 1000

type OnAppended = (event: Event | undefined) => void

/**
 * Appends the messages of the built-in broker to the journal, inside the process, and publishes at the broker.
 *
 * Acknowledgements wait until the journal has their messages. While it accepts nothing, they wait for `ackTimeout`; then messages are
 * acknowledged at once, and a gap marker follows where the journal's queue had no room for one.
 */
export async function openEmbeddedSource(options: EmbeddedSourceOptions): Promise<Source> {
  const source = new EmbeddedSource(options)
  await source.start()
  return source
}

class EmbeddedSource implements Source {
  readonly #options: EmbeddedSourceOptions
  #topics: readonly string[]
  #matches: (topic: string) => boolean
  readonly #writer: JournalWriter
  readonly #quota = new PublishQuota(quota)
  readonly #ackTimeout: number
  readonly #sink: MessageSink
  #attached: ReturnType<EmbeddedBroker['attach']> | undefined
  /** Waiting acknowledgements, in order. */
  readonly #held = new Set<() => void>()
  /**
   * Whether acknowledgements wait for the journal. `releasing`: they will not, as soon as it is stored that the journal may lack messages.
   */
  #state: 'holding' | 'releasing' | 'released' = 'holding'
  #isFull = false
  /** Whether messages were dropped since the last append. */
  #hasDropped = false
  /** Whether it is stored that the journal has all messages. */
  #isRemembered = false
  /** Time of the last append, or of the first waiting message, in milliseconds. */
  #lastProgress = 0
  #timer: NodeJS.Timeout | undefined
  /** Topics whose retained message changed since the comparison began; `undefined` while none runs. */
  #changed: Set<string> | undefined
  readonly #pending = new Set<(error: GatewayError) => void>()
  readonly #onDrained: (() => void)[] = []
  readonly #onResume: (() => void)[] = []
  #isComparing = false
  #mustCompare = false
  #forgetting: Promise<void> | undefined
  #remembering: Promise<void> | undefined
  #closing: Promise<void> | undefined
  /** Whether no more messages are appended. */
  #isClosed = false

  constructor(options: EmbeddedSourceOptions) {
    this.#options = options
    this.#ackTimeout = options.ackTimeout ?? defaultAckTimeout
    this.#topics = options.topics
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
    const isFull = (): boolean => this.#isFull && this.#state !== 'released' && !this.#isClosed
    this.#sink = {
      get isFull() {
        return isFull()
      },
      append: (message, isAwaited) => {
        if (isResponseTopic(message.topic)) this.#options.inbox?.deliver(message)
        if (!this.#isKept(message.topic)) return undefined
        return this.#append(message, isAwaited ? 'now' : 'at leisure', isAwaited ? ignore : undefined)
      },
    }
  }

  get connected(): boolean {
    return this.#closing === undefined
  }

  get failure(): string | undefined {
    return this.connected ? undefined : 'the gateway is shutting down'
  }

  async receiveResponses(): Promise<void> {}

  /** Whether messages on `topic` are appended: responses are not, because only who asked may read them. */
  #isKept(topic: string): boolean {
    return this.#matches(topic) && !isResponseTopic(topic)
  }

  async changeTopics(topics: readonly string[]): Promise<void> {
    this.#topics = topics
    this.#matches = topicPredicate(topics)
    // Retained messages on the new topics.
    await this.#compareRetained()
    this.#rememberWhenWritten()
  }

  /** Attaches to the broker, and appends its retained messages that the journal lacks. */
  async start(): Promise<void> {
    const { journal, remembered, broker } = this.#options
    const isComplete = journal.head === 0 || (await remembered.load()) !== undefined
    if (!isComplete) this.#writer.write(gapMarker, 'now', ignore)
    this.#attached = broker.attach(this.#sink)
    await this.#compareRetained()
    this.#rememberWhenWritten()
  }

  async publish(
    given: Message,
    { by, extraTimeout = 0, acknowledgements }: PublishOptions = {},
  ): Promise<Event | undefined> {
    const message = unretainedResponse(given)
    const { broker, packetSize, publishTimeout = defaultPublishTimeout } = this.#options
    requirePublishable(message, packetSize)
    if (!this.connected) throw new GatewayError('broker-away', { hint: 'the gateway is shutting down' })
    const isKept = this.#isKept(message.topic)
    if (isKept && this.#writer.stuck) throw new GatewayError('journal-unavailable')
    const size = sizeOf(message)
    this.#quota.take(by, size)
    const published = new Promise<Event | undefined>((resolve, reject) => {
      const onAppended: OnAppended = event => {
        if (event) resolve(event)
        else reject(new GatewayError('publish-timeout'))
      }
      const append: MessageSink['append'] = (accepted, isAwaited) =>
        isKept ? this.#append(accepted, 'now', onAppended) : this.#sink.append(accepted, isAwaited)
      broker.publish(message, by, append, acknowledgements).then(
        () => {
          if (!isKept) resolve(undefined)
        },
        cause => reject(new GatewayError('broker-away', { hint: 'it failed to store the message', cause })),
      )
    })
    const giveBack = (): void => this.#quota.giveBack(by, size)
    published.then(giveBack, giveBack)
    return this.#inTime(published, publishTimeout + extraTimeout)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    const { log } = this.#options
    // Publishes in progress are appended and answered.
    const flushed = this.#flush().then(() => true)
    const isFlushed = await Promise.race([flushed, delay(this.#writer.stuck ? 0 : closeTimeout, false, { ref: false })])
    this.#isClosed = true
    if (!isFlushed) {
      log.warn('the journal did not accept the last messages')
      await this.#releaseAll()
    }
    this.#release()
    this.#resume()
    clearTimeout(this.#timer)
    this.#writer.close()
    for (const fail of this.#pending) fail(new GatewayError('publish-timeout'))
    await this.#remembering
  }

  async #flush(): Promise<void> {
    await this.#attached?.idle()
    await this.#drained()
  }

  /**
   * Appends a message in order.
   *
   * @param onAppended called with the event, or without it if the message was dropped; left out if no caller waits
   * @returns resolves when the message may be acknowledged; `undefined` if it may at once
   */
  #append(message: Message, urgency: Urgency, onAppended?: OnAppended): Promise<void> | undefined {
    if (this.#isClosed) {
      onAppended?.(undefined)
      // The next start must know that this message is missing.
      return this.#forget()
    }
    if (message.retain) this.#noteChange(message.topic)
    return this.#write(message, urgency, onAppended)
  }

  #write(message: Message, urgency: Urgency, onAppended?: OnAppended): Promise<void> | undefined {
    if (this.#state === 'released' && (this.#hasDropped || this.#isFull)) {
      this.#hasDropped = true
      onAppended?.(undefined)
      return undefined
    }
    this.#startTimer()
    if (!onAppended || this.#state === 'released') {
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
    this.#lastProgress = performance.now()
    if (this.#state !== 'released') return
    this.#state = 'holding'
    const hasDropped = this.#hasDropped
    this.#hasDropped = false
    if (hasDropped) this.#writer.write(gapMarker, 'now', ignore)
    this.#rememberWhenWritten()
    if (hasDropped) void this.#compareRetained()
  }

  /** Starts the timer that notices a journal without progress. */
  #startTimer(): void {
    if (this.#writer.drained) this.#lastProgress = performance.now()
    if (this.#timer) return
    this.#timer = setTimeout(() => this.#onTimer(), this.#ackTimeout).unref()
  }

  #onTimer(): void {
    this.#timer = undefined
    if (this.#writer.drained || this.#state !== 'holding') return
    const left = this.#lastProgress + this.#ackTimeout - performance.now()
    if (left <= 0) void this.#releaseAll()
    else this.#timer = setTimeout(() => this.#onTimer(), left).unref()
  }

  /** Stops holding acknowledgements back, after storing for the next start that messages may be missing. */
  async #releaseAll(): Promise<void> {
    if (this.#state !== 'holding') return
    this.#state = 'releasing'
    this.#options.log.warn(
      'the journal accepts nothing: acknowledging messages without it; subscribers get a gap marker for lost ones',
    )
    await this.#forget()
    this.#state = 'released'
    this.#release()
    if (this.#writer.drained) this.#progressed()
    this.#resume()
  }

  /** Stores that the journal may lack messages. */
  #forget(): Promise<void> {
    this.#isRemembered = false
    const { remembered, log } = this.#options
    this.#forgetting ??= remembered
      .forget()
      .catch(error => {
        log.error({ err: error }, 'failed to store that messages may be missing; a restart would not report a gap')
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
      if (this.#state === 'holding') this.#remember()
    })
  }

  #remember(): void {
    if (this.#isRemembered || this.#isClosed) return
    this.#isRemembered = true
    const { remembered, log } = this.#options
    const topics = this.#topics
    this.#remembering = remembered.save({ clientId: '', dialect: 'embedded', topics }).catch(error => {
      log.warn({ err: error }, 'failed to store the state of push; subscribers get a gap marker after a restart')
    })
  }

  /** Appends the broker's retained messages that the journal lacks: of an earlier configuration, or after a gap. */
  async #compareRetained(): Promise<void> {
    // One at a time: it must know of every change in the meantime.
    this.#mustCompare = true
    if (this.#isComparing) return
    this.#isComparing = true
    while (this.#mustCompare) {
      this.#mustCompare = false
      await this.#compareRetainedOnce()
    }
    this.#isComparing = false
  }

  async #compareRetainedOnce(): Promise<void> {
    const { broker, journal, log } = this.#options
    const topics = this.#topics
    const changed = new Set<string>()
    this.#changed = changed
    try {
      const known = await readDigests(journal, topics).catch(error => {
        log.warn({ err: error }, 'failed to read retained messages from the journal; all of them become events again')
        return new Map<string, string>()
      })
      for await (const messages of broker.retained(topics)) {
        for (const message of messages) {
          if (!this.connected || changed.size >= maxChanged) return
          const { topic, payload } = message
          if (changed.has(topic) || !this.#matches(topic) || isDigestOf(known.get(topic), payload)) continue
          // Not `#append`, which would count it as a change.
          this.#write(message, 'now')
        }
        await this.#untilRoom()
      }
    } catch (error) {
      log.warn({ err: error }, 'failed to compare retained messages; new subscribers may get outdated ones')
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

  /** Resolves when the journal's queue has room. */
  #untilRoom(): Promise<void> {
    if (!this.#sink.isFull) return Promise.resolve()
    return new Promise(resolve => this.#onResume.push(resolve))
  }

  #onPressure(isHigh: boolean): void {
    this.#isFull = isHigh
    if (!isHigh) this.#resume()
  }

  #resume(): void {
    this.#attached?.resume()
    for (const listener of this.#onResume.splice(0)) listener()
  }

  /** @throws {GatewayError} rejects with `publish-timeout` after `time` milliseconds */
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
