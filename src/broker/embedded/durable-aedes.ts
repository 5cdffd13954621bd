import { Aedes, type AedesOptions, type AedesPublishPacket, type Client, type PublishPacket } from 'aedes'
import { FairQueue } from '../../base/fair-queue.js'
import { isResponseTopic } from '../../topics/response-topic.js'
import type { Receiver } from './delivery.js'
import { Dispatcher, type DispatcherHooks } from './dispatcher.js'
import type { LiveSubscriptions } from './live-subscriptions.js'
import type { MessageSink } from './message-sink.js'
import { carried, messageOf, propertiesOf } from './packet.js'
import type { Store } from './store.js'
import { type TickScheduler, TickSlice } from './tick-scheduler.js'
import { type PendingWrite, UnwrittenMessages } from './unwritten-messages.js'

declare module 'aedes' {
  interface Aedes {
    /** Missing in Aedes' type declarations, as are those below. */
    clients: Record<string, Client>
    scheduleSessionExpiry(client: Client): void
    scheduleWill(client: Client, will: PublishPacket, delay: number): void
    publishWill(client: Client, will: PublishPacket): void
    clearDelayedWill(clientId: string): void
    readonly delayedWills: ReadonlyMap<string, unknown>
    publish(packet: PublishPacket, client: Client | null, done?: Done): void
    on(event: 'error', listener: (error: unknown) => void): this
  }
}

type Done = (error?: Error) => void

/** Called when a message may be acknowledged, with whether any subscription matches it; or with an error. */
type Stored = (error: Error | undefined, hasSubscribers: boolean) => void

/** Messages with more payload than this, in bytes, are appended to the journal one at a time. */
const hugeMessage = 256 * 1024

/** Bytes that count like a millisecond of delivery. */
const bytesPerMillisecond = 16 * 1024

/** Larger payloads, in bytes, count towards their publisher's share of time. */
const largeMessage = 16 * 1024

interface Gates {
  /** Quota key of a publisher; `null` is the broker itself, or a client of an earlier run. */
  readonly accountOf: (client: Client | null) => string
  /** Whether a will is published. */
  readonly mayPublishWill: (client: Client, topic: string) => boolean
  /** Delivers a message to one subscriber; see `Dispatcher`. */
  readonly deliver: DispatcherHooks['deliver']
  /** Called with the payload size of a client's large message when it arrives, and with the negative size when it was published. */
  readonly onProgress: (client: Client, bytes: number) => void
  /** Decides for which subscribers publishers wait. */
  readonly backpressure: Pick<DispatcherHooks, 'isAnyCongested' | 'isStalled' | 'isWaitedFor' | 'onWait'>
}

interface Publication {
  readonly packet: PublishPacket
  readonly client: Client | null
  /** Quota key of its publisher; each has a queue of its own. Default: the client's. */
  readonly account?: string | undefined
  /** Appends it to the journal instead of the sink's `append`. */
  readonly append?: MessageSink['append'] | undefined
  /** Called before it is delivered. */
  readonly onEmit?: ((packet: AedesPublishPacket) => void) | undefined
  /** Resolves when the journal permits its acknowledgement; `undefined` if it does not wait for the journal. */
  appended?: Promise<void> | undefined
  /** Left out without an acknowledgement. */
  readonly stored?: Stored
  /** Called when it is delivered to all subscribers, or dropped. */
  readonly done: Done
  /** Whether any subscription matches it. */
  hasSubscribers?: boolean
  /** Writes before its acknowledgement. */
  written?: Promise<void> | undefined
  /** Whether it is the huge message that is being appended. */
  isHugeSlotHeld?: boolean
  /** Whether it is only acknowledged, in order. */
  readonly isDropped?: boolean
  /** Of a message of QoS 2: its outcome, for repetitions of it. */
  readonly outcome?: Outcome | undefined
  /** Whether it is a repetition of a message of QoS 2, whose packet identifier is stored, or will be. */
  isRepetition?: boolean
}

/** Of a message of QoS 2. */
interface Outcome {
  /** Resolves when it may be acknowledged, rejects if it cannot be stored. */
  readonly due: Promise<unknown>
  readonly settle: (due: Promise<unknown> | undefined) => void
}

/**
 * Aedes with durable acknowledgements and ordered delivery.
 *
 * - Aedes writes PUBACK before it stores the message: a crash in between loses an acknowledged message. For QoS 2 it stores the packet
 *   identifier first, and treats the repetition after a crash as a duplicate. Here the message is stored first. A crash in between may
 *   deliver a message of QoS 2 twice, which is better than its loss.
 * - Aedes stores concurrently, and drops a message that is out of order as a duplicate. Here messages are delivered one by one, in order,
 *   without waiting for the disk.
 * - A message is acknowledged when it is written to sessions' queues, to the retained messages and to the journal. An account with many
 *   unwritten bytes waits with its further messages; no other account does.
 * - Delivery is sliced by event-loop ticks, and accounts take turns.
 */
export class DurableAedes extends Aedes {
  readonly #store: Store
  readonly #gates: Gates
  /** Messages of QoS 2 whose packet identifier is not stored yet, by session (or connection without one) and identifier. */
  readonly #exactlyOnce = new WeakMap<object, Map<number, Outcome>>()
  readonly #queue = new FairQueue<Publication>()
  readonly #slice: TickSlice
  readonly #unwritten: UnwrittenMessages<Publication>
  /** Wills that wait for their delay, by client id. */
  readonly #delayed = new Map<string, { readonly client: Client; readonly will: PublishPacket }>()
  #sink: MessageSink | undefined
  /** By client: its last delayed acknowledgement, and whether that waits for the sink alone. */
  readonly #acknowledging = new WeakMap<Client, { readonly sent: Promise<void>; readonly isAppendOnly: boolean }>()
  /** Whether a huge message is being appended, and the huge messages that wait for it. */
  #isHugeSlotTaken = false
  readonly #waitingHuge: (() => void)[] = []
  #inProgress = 0
  readonly #onIdle: (() => void)[] = []
  /** Whether any acknowledgement was ever delayed. */
  #hasDelayedAck = false
  #pausing = false
  #current: Publication | undefined
  /** The message that is being delivered, synchronously. */
  #dispatched: Publication | undefined
  #dispatchedAt = 0

  constructor(
    store: Store,
    gates: Gates,
    subscriptions: LiveSubscriptions<Receiver>,
    tick: TickScheduler,
    options: Omit<AedesOptions, 'mq' | 'persistence' | 'authorizePublish' | 'concurrency'>,
  ) {
    let onEmit: DispatcherHooks['onEmit'] = ignore
    let onEmitted: DispatcherHooks['onEmitted'] = ignore
    let publisher: () => Client | undefined = () => undefined
    // The dispatcher bounds concurrency; 0 also keeps the limit of listeners on a connection.
    super({
      ...options,
      persistence: store,
      concurrency: 0,
      mq: new Dispatcher(subscriptions, {
        onEmit: packet => onEmit(packet),
        onEmitted: count => onEmitted(count),
        publisher: () => publisher(),
        deliver: gates.deliver,
        ...gates.backpressure,
      }),
    })
    this.#store = store
    this.#gates = gates
    this.#unwritten = new UnwrittenMessages({
      release: (account, publications) => {
        this.#queue.unshift(account, publications)
        this.#advance()
      },
      internalAccount: gates.accountOf(null),
    })
    this.#slice = new TickSlice(tick, () => this.#advance())
    onEmit = packet => this.#onEmit(packet)
    onEmitted = subscribers => {
      const leaving = this.#dispatched
      this.#dispatched = undefined
      if (!leaving) return
      leaving.hasSubscribers = subscribers > 0 || leaving.hasSubscribers === true
      this.#chargeTime(leaving)
      this.#delivered(leaving)
    }
    publisher = () => this.#dispatched?.client ?? undefined
    // Wills only: the other messages come by `accept` and `publishInternal`.
    this.authorizePublish = (client, packet, done) => {
      // A will of an earlier run was screened at its CONNECT, and is not of the current client.
      const isAllowed = !client || 'brokerId' in packet || gates.mayPublishWill(client, packet.topic)
      done(isAllowed ? null : new Error('the client may not publish its will'))
    }
    this.clients = Object.create(null)
    this.brokers = Object.create(null)
  }

  /** Called by Aedes for wills, and its own messages. */
  override publish(packet: PublishPacket, done?: Done): void
  override publish(packet: PublishPacket, client: Client | null, done?: Done): void
  override publish(packet: PublishPacket, clientOrDone?: Client | null | Done, maybeDone?: Done): void {
    const client = typeof clientOrDone === 'function' ? null : (clientOrDone ?? null)
    const done = (typeof clientOrDone === 'function' ? clientOrDone : maybeDone) ?? ignore
    const message = withWillExpiry(packet)
    if (packet.qos === 0) this.#enqueue({ packet: message, client, done })
    else this.#enqueue({ packet: message, client, stored: error => done(error), done: ignore })
  }

  /** Nothing: `Sessions` ends sessions, also those of an earlier run. */
  override scheduleSessionExpiry(): void {}

  override scheduleWill(client: Client, will: PublishPacket, delay: number): void {
    super.scheduleWill(client, will, delay)
    if (this.delayedWills.has(client.id)) this.#delayed.set(client.id, { client, will })
  }

  override publishWill(client: Client, will: PublishPacket): void {
    this.#delayed.delete(client.id)
    super.publishWill(client, will)
  }

  override clearDelayedWill(clientId: string): void {
    this.#delayed.delete(clientId)
    super.clearDelayedWill(clientId)
  }

  /** Publishes the will of a client that waits for its delay, as its session ends now. */
  publishDelayedWill(clientId: string): void {
    const delayed = this.#delayed.get(clientId)
    if (!delayed) return
    this.clearDelayedWill(clientId)
    this.publishWill(delayed.client, delayed.will)
  }

  /**
   * Publishes a client's message.
   *
   * @param stored called when it may be acknowledged, in the order of the client's messages; left out with QoS 0
   * @param done called when it is delivered
   */
  accept(client: Client, packet: PublishPacket, stored: Stored | undefined, done: Done): void {
    if (!stored) {
      this.#enqueue({ packet, client, done })
      return
    }
    if (packet.qos < 2) {
      this.#enqueue({ packet, client, stored, done })
      return
    }
    const outcome = pendingOutcome()
    const publication: Publication = {
      packet,
      client,
      outcome,
      done,
      stored: (error, hasSubscribers) => {
        // The original of a repetition may be of a connection that was over before.
        const isStored = publication.isRepetition && this.#store.hasIncoming(client.id, packet.messageId ?? 0)
        if (error || isStored) stored(error, hasSubscribers || isStored === true)
        else this.#storeIdentifier(client, packet, failure => stored(failure, hasSubscribers))
      },
    }
    this.#enqueue(publication)
  }

  #storeIdentifier(client: Client, packet: PublishPacket, done: Done): void {
    this.#store.incomingStorePacket(client, packet).then(
      () => {
        this.#unstoredOf(client)?.delete(packet.messageId ?? 0)
        done()
      },
      error => done(error),
    )
  }

  /** Acknowledges a client's message without publishing it, in the order of its messages. */
  drop(client: Client, packet: PublishPacket, stored: Stored, done: Done): void {
    this.#enqueue({ packet, client, isDropped: true, stored, done })
  }

  #unstoredOf(client: Client): Map<number, Outcome> | undefined {
    return this.#exactlyOnce.get(this.#sessionOf(client))
  }

  #sessionOf(client: Client): object {
    return (client.clean ? undefined : this.#store.sessions.get(client.id)) ?? client
  }

  /** Acknowledges a message of QoS 2 whose identifier PUBREL has not released, as soon as its original is; returns whether it is one. */
  #acknowledgeRepetition(next: Publication, outcome: Outcome): boolean {
    const { client, packet } = next
    if (!client) return false
    const id = packet.messageId ?? 0
    const unstored = this.#unstoredOf(client)
    const original = unstored?.get(id)
    if (original === outcome) return false
    if (!original && !this.#store.hasIncoming(client.id, id)) {
      if (unstored) unstored.set(id, outcome)
      else this.#exactlyOnce.set(this.#sessionOf(client), new Map([[id, outcome]]))
      return false
    }
    next.isRepetition = true
    this.#finished(client, packet)
    this.#acknowledge(next, original?.due)
    outcome.settle(original?.due)
    next.done()
    return true
  }

  /**
   * Publishes a message of the gateway itself, such as one published over HTTP.
   *
   * @returns resolves when the message is stored and may be acknowledged
   * @throws {Error} rejects if it cannot be stored
   */
  publishInternal(publication: Pick<Publication, 'packet' | 'account' | 'append' | 'onEmit'>): Promise<void> {
    return new Promise((resolve, reject) => {
      const stored: Stored = error => (error ? reject(error) : resolve())
      this.#enqueue({ ...publication, client: null, stored, done: ignore })
    })
  }

  /**
   * Appends each delivered message to a journal: acknowledgements wait for that, and further messages wait while the sink is full.
   */
  setSink(sink: MessageSink): void {
    this.#sink = sink
  }

  resume(): void {
    if (this.#queue.size > 0) queueMicrotask(() => this.#advance())
  }

  #accountOf({ account, client }: Publication): string {
    return account ?? this.#gates.accountOf(client)
  }

  /** Resolves when no message is in progress. */
  idle(): Promise<void> {
    if (this.#inProgress === 0) return Promise.resolve()
    return new Promise(resolve => this.#onIdle.push(resolve))
  }

  #finished(client: Client | null, { payload }: PublishPacket): void {
    if (client && payload.length > largeMessage) this.#gates.onProgress(client, -payload.length)
    if (--this.#inProgress > 0) return
    for (const listener of this.#onIdle.splice(0)) listener()
  }

  #enqueue(publication: Publication): void {
    const { client, packet } = publication
    // Nobody would remove it.
    if (isResponseTopic(packet.topic)) packet.retain = false
    this.#inProgress++
    if (client && packet.payload.length > largeMessage) this.#gates.onProgress(client, packet.payload.length)
    if (this.#queue.size === 0 && this.#mayBegin()) this.#begin(publication)
    else this.#queue.push(this.#accountOf(publication), publication)
  }

  /** Whether a message may be published now; otherwise `#advance` is called later. */
  #mayBegin(): boolean {
    // The slice last, because checking it begins it.
    return !this.#current && !this.#pausing && !this.#sink?.isFull && !this.#slice.isOver
  }

  #begin(next: Publication): void {
    const { outcome, packet } = next
    if (this.#unwritten.size > 0 && this.#unwritten.holdBack(this.#accountOf(next), next)) return
    if (next.isDropped) {
      this.#delivered(next)
      next.done()
      return
    }
    if (outcome && this.#acknowledgeRepetition(next, outcome)) return
    if (this.#isHuge(next) && !this.#takeHugeSlot(next)) return
    const { length } = packet.payload
    // It takes more of the journal's and the subscribers' time.
    if (length > largeMessage) this.#queue.charge(this.#accountOf(next), length)
    this.#current = next
    this.#publish(next)
  }

  #isHuge({ packet }: Publication): boolean {
    return this.#sink !== undefined && packet.payload.length > hugeMessage
  }

  /** A huge message waits for the one before it, with its account's further messages; other accounts' messages pass. */
  #takeHugeSlot(next: Publication): boolean {
    if (next.isHugeSlotHeld) return true
    if (!this.#isHugeSlotTaken) {
      this.#isHugeSlotTaken = true
      next.isHugeSlotHeld = true
      return true
    }
    const slot = new Promise<Publication>(resolve => {
      this.#waitingHuge.push(() => resolve({ ...next, isHugeSlotHeld: true }))
    })
    this.#unwritten.waitFor(this.#accountOf(next), slot)
    return false
  }

  #giveHugeSlot(): void {
    const next = this.#waitingHuge.shift()
    if (next) next()
    else this.#isHugeSlotTaken = false
  }

  #advance(): void {
    while (this.#queue.size > 0 && this.#mayBegin()) {
      const next = this.#queue.shift()
      if (next) this.#begin(next)
    }
  }

  #publish(next: Publication): void {
    if (next.packet.retain) this.#store.publisher = this.#accountOf(next)
    this.#store.publisherId = next.client?.id
    // With a journal, the identifier waits for the message's append: the repetition must not be dropped before.
    const isStoredTogether = next.packet.qos === 2 && next.client?.clean === false && !this.#sink
    this.#store.publishedId = isStoredTogether ? next.packet.messageId : undefined
    super.publish(cleanCopy(next.packet), next.client, error => {
      if (this.#current === next) this.#giveUp(next, error)
      next.done(error)
    })
  }

  /** Called when the current message could not be stored. */
  #giveUp(current: Publication, error: Error | undefined): void {
    this.#store.takeWrites()
    this.#current = undefined
    this.#finished(current.client, current.packet)
    if (current.isHugeSlotHeld) this.#giveHugeSlot()
    const failure = error ?? new Error('it could not be stored')
    this.#forgetOutcome(current)
    current.outcome?.settle(Promise.reject(failure))
    current.stored?.(failure, false)
    if (this.#queue.size > 0) queueMicrotask(() => this.#advance())
  }

  /** A message with thousands of matching filters takes as long as thousands of others. */
  #chargeTime(delivered: Publication): void {
    const milliseconds = performance.now() - this.#dispatchedAt
    if (milliseconds >= 1) this.#queue.charge(this.#accountOf(delivered), milliseconds * bytesPerMillisecond)
  }

  /** Called when the current message is stored, before its delivery. */
  #onEmit(packet: AedesPublishPacket): void {
    const current = this.#current
    if (!current) return
    this.#dispatched = current
    this.#dispatchedAt = performance.now()
    this.#current = undefined
    current.onEmit?.(packet)
    current.hasSubscribers = this.#store.takeMatchedSessions() > 0
    const write = this.#store.takeWrites()
    if (write) this.#track(current, write)
    if (this.#sink) {
      const append = current.append ?? ((message, isAwaited) => this.#sink?.append(message, isAwaited))
      current.appended = append(messageOf(packet), current.stored !== undefined || current.isHugeSlotHeld === true)
    }
    // Asynchronously: this message is not delivered yet.
    if (this.#queue.size > 0) queueMicrotask(() => this.#advance())
  }

  /** Called when a message is delivered, or dropped. */
  #delivered(publication: Publication): void {
    const { packet, client, written, appended, isHugeSlotHeld, outcome } = publication
    this.#finished(client, packet)
    if (isHugeSlotHeld) void Promise.resolve(appended).then(() => this.#giveHugeSlot())
    const due = appended && written ? Promise.all([appended, written]) : (appended ?? written)
    outcome?.settle(due)
    this.#acknowledge(publication, due)
  }

  /** A message that could not be stored is new when it comes again. */
  #forgetOutcome({ client, packet, outcome }: Publication): void {
    if (client && outcome) this.#forgetIdentifier(client, packet, outcome)
  }

  #forgetIdentifier(client: Client, { messageId = 0 }: PublishPacket, outcome: Outcome): void {
    const unstored = this.#unstoredOf(client)
    if (unstored?.get(messageId) === outcome) unstored.delete(messageId)
  }

  /**
   * Whether an acknowledgement of QoS 2 comes too late: Aedes would store the identifier for a connection that is over, and the next message
   * with it would count as a repetition. Where a session has no other connection, it is stored for the next one.
   */
  #isTooLate({ client, outcome }: Publication): boolean {
    if (!outcome || !client?.closed) return false
    return client.clean || this.#store.sessions.isConnected(client.id)
  }

  #track(current: Publication, write: PendingWrite): void {
    current.written = write.written
    this.#unwritten.add(this.#accountOf(current), write)
    // Otherwise the acknowledgement gets the error.
    if (!current.stored) write.written.catch(error => this.emit('error', error))
    if (!write.isForMany) return
    // Matching many sessions takes time: the next message waits for another tick.
    this.#pausing = true
    setImmediate(() => {
      this.#pausing = false
      this.#advance()
    })
  }

  /** Acknowledges a message when it is written, after the earlier ones of its client [MQTT-4.6.0-2]. */
  #acknowledge(publication: Publication, written: Promise<unknown> | undefined): void {
    const { client, stored } = publication
    if (!stored) return
    const earlier = client && this.#hasDelayedAck ? this.#acknowledging.get(client) : undefined
    // The sink keeps its order.
    const isAppendOnly = written !== undefined && written === publication.appended
    const isOrdered = !earlier || (isAppendOnly && earlier.isAppendOnly)
    const due = isOrdered ? written : earlier.sent.then(() => written)
    const hasSubscribers = publication.hasSubscribers === true
    if (!due) {
      stored(undefined, hasSubscribers)
      return
    }
    const sent = due.then(
      () => {
        if (!this.#isTooLate(publication)) stored(undefined, hasSubscribers)
      },
      error => {
        this.#forgetOutcome(publication)
        stored(error, hasSubscribers)
      },
    )
    if (!client) return
    this.#hasDelayedAck = true
    this.#acknowledging.set(client, { sent, isAppendOnly })
  }
}

function pendingOutcome(): Outcome {
  let settle: Outcome['settle'] = ignore
  const due = new Promise<unknown>(resolve => {
    settle = resolve
  })
  // A repetition gets the error.
  due.catch(ignore)
  return { due, settle }
}

/** The expiry of a will counts from its publication (MQTT 5 §3.1.3.2.4). */
function withWillExpiry(packet: PublishPacket): PublishPacket {
  const interval = packet.properties?.messageExpiryInterval
  if (interval === undefined) return packet
  return Object.assign({ ...packet }, { messageExpiry: Date.now() + interval * 1000 })
}

/**
 * Without the publisher's DUP flag [MQTT-3.3.1-3], and without the broker id and counter of a will of an earlier run, which another message
 * may have.
 */
function cleanCopy(packet: PublishPacket): PublishPacket {
  const { topic, payload, qos, retain } = packet
  return { cmd: 'publish', topic, payload, qos, retain, dup: false, ...carried(propertiesOf(packet)) }
}

function ignore(): void {}
