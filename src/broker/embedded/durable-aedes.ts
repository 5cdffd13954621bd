import { Aedes, type AedesOptions, type AedesPublishPacket, type Client, type PublishPacket } from 'aedes'
import { FairQueue } from '../../base/fair-queue.js'
import { isResponseTopic } from '../../topics/response-topic.js'
import { Dispatcher, type DispatcherHooks } from './dispatcher.js'
import type { LiveSubscriptions } from './live-subscriptions.js'
import type { MessageSink } from './message-sink.js'
import { carried, messageOf, propertiesOf } from './packet.js'
import type { Store } from './store.js'
import { type TickScheduler, TickSlice } from './tick-scheduler.js'
import { type PendingWrite, UnwrittenMessages } from './unwritten-messages.js'

declare module 'aedes' {
  interface Aedes {
    /** Missing in Aedes' type declarations, as is the event below. */
    publish(packet: PublishPacket, client: Client | null, done?: Done): void
    on(event: 'error', listener: (error: unknown) => void): this
  }
}

type Done = (error?: Error) => void

/** Messages with more payload than this, in bytes, are appended to the journal one at a time. */
const hugeMessage = 256 * 1024

/** Bytes that count like a millisecond of delivery. */
const bytesPerMillisecond = 16 * 1024

/** Larger payloads, in bytes, count towards their publisher's share of time. */
const largeMessage = 16 * 1024

/** Whether a client's message is published; if not, it is acknowledged and dropped. An error closes the connection. */
type Screen = (client: Client, topic: string) => boolean | Error

interface Gates {
  /** Quota key of a publisher; `null` is the broker itself, or a client of an earlier run. */
  readonly accountOf: (client: Client | null) => string
  readonly screen: Screen
  /** Called for a client's message to `$SYS`, which is acknowledged and dropped. */
  readonly ignored: (client: Client, topic: string) => void
  /** Records a packet identifier of QoS 2; returns an error if the client has too many without PUBREL. */
  readonly holdIdentifier: (client: Client, id: number) => Error | undefined
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
  /** Resolves when the journal permits its acknowledgement; `undefined` if it does not wait for the journal. */
  appended?: Promise<void> | undefined
  /** Called when it is stored, or storing failed; left out without an acknowledgement. */
  readonly stored?: Done
  readonly done: Done
  /** Writes before its acknowledgement. */
  written?: Promise<void> | undefined
  /** Whether it is the huge message that is being appended. */
  isHugeSlotHeld?: boolean
  /** Whether it is only acknowledged, in order. */
  readonly isDropped?: boolean
  /** Of a message of QoS 2: its outcome, for repetitions of it. */
  readonly early?: EarlyPublish | undefined
}

/** Result of a message published during `authorizePublish`, for Aedes' own publish that follows. */
interface EarlyPublish {
  finished: boolean
  error: Error | undefined
  waiting: Done[]
  /** Of a message of QoS 2: resolves when it may be acknowledged, rejects if it cannot be stored. */
  readonly due?: Promise<unknown>
  readonly settle?: (due: Promise<unknown> | undefined) => void
}

/**
 * Aedes with durable acknowledgements and ordered delivery.
 *
 * - Aedes writes PUBACK before it stores the message: a crash in between loses an acknowledged message. For QoS 2 it stores the packet
 *   identifier first, and treats the repetition after a crash as a duplicate. Here both are published during authorization, the step
 *   before, and not again after it. A crash in between may deliver a message of QoS 2 twice, which is better than its loss.
 * - Aedes stores concurrently, and drops a message that is out of order as a duplicate. Here messages are delivered one by one, in order,
 *   without waiting for the disk.
 * - A message is acknowledged when it is written to sessions' queues, to the retained messages and to the journal. An account with many
 *   unwritten bytes waits with its further messages; no other account does.
 * - Delivery is sliced by event-loop ticks, and accounts take turns.
 */
export class DurableAedes extends Aedes {
  readonly #store: Store
  readonly #gates: Gates
  readonly #early = new WeakMap<PublishPacket, EarlyPublish>()
  /** Messages of QoS 2 whose packet identifier is not stored yet, by session (or connection without one) and identifier. */
  readonly #exactlyOnce = new WeakMap<object, Map<number, EarlyPublish>>()
  readonly #queue = new FairQueue<Publication>()
  readonly #slice: TickSlice
  readonly #unwritten: UnwrittenMessages<Publication>
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
    subscriptions: LiveSubscriptions,
    tick: TickScheduler,
    options: Omit<AedesOptions, 'mq' | 'persistence' | 'authorizePublish' | 'concurrency'>,
  ) {
    let onEmit: DispatcherHooks['onEmit'] = ignore
    let onEmitted = ignore
    let publisher: () => Client | undefined = () => undefined
    // The dispatcher bounds concurrency; 0 also keeps the limit of listeners on a connection.
    super({
      ...options,
      persistence: store,
      concurrency: 0,
      mq: new Dispatcher(subscriptions, {
        onEmit: packet => onEmit(packet),
        onEmitted: () => onEmitted(),
        publisher: () => publisher(),
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
    onEmitted = () => {
      const leaving = this.#dispatched
      this.#dispatched = undefined
      if (!leaving) return
      this.#chargeTime(leaving)
      this.#delivered(leaving)
    }
    publisher = () => this.#dispatched?.client ?? undefined
    this.authorizePublish = (client, packet, done) => this.#authorize(client, packet, done)
  }

  override publish(packet: PublishPacket, done?: Done): void
  override publish(packet: PublishPacket, client: Client | null, done?: Done): void
  override publish(packet: PublishPacket, clientOrDone?: Client | null | Done, maybeDone?: Done): void {
    const client = typeof clientOrDone === 'function' ? null : (clientOrDone ?? null)
    const done = (typeof clientOrDone === 'function' ? clientOrDone : maybeDone) ?? ignore
    const early = this.#early.get(packet)
    if (!early) this.#enqueue({ packet, client, done })
    else if (early.finished) done(early.error)
    else early.waiting.push(done)
    // Aedes has stored the identifier.
    if (client && packet.messageId !== undefined) this.#unstoredOf(client)?.delete(packet.messageId)
  }

  /** Called for wills, too; those of an earlier run have no client. */
  #authorize(client: Client | null, packet: PublishPacket, done: Done): void {
    // A will of an earlier run was screened at its CONNECT, and is not of the current client.
    const verdict = client && !('brokerId' in packet) ? this.#gates.screen(client, packet.topic) : true
    const isIgnored = verdict === true && isSystemTopic(packet.topic)
    // Nobody would remove it.
    if (isResponseTopic(packet.topic)) packet.retain = false
    if (isIgnored && client) this.#gates.ignored(client, packet.topic)
    if (verdict === false || isIgnored) this.#drop(client, packet, done)
    else if (verdict === true) this.#prepare(client, packet, done)
    else done(verdict)
  }

  /** MQTT 3.1.1 cannot refuse a message: it is acknowledged like others [MQTT-3.3.5-2]. */
  #drop(client: Client | null, packet: PublishPacket, done: Done): void {
    const early: EarlyPublish = { finished: false, error: undefined, waiting: [] }
    this.#early.set(packet, early)
    // Asynchronously: see the dispatcher.
    setImmediate(finish, early)
    this.#enqueue({ packet, client, isDropped: true, stored: done, done: ignore })
  }

  /** Publishes a message of QoS 1 or 2 before Aedes acknowledges it. */
  #prepare(client: Client | null, packet: PublishPacket, done: Done): void {
    if (packet.qos === 0) {
      done()
      return
    }
    const isTwo = packet.qos === 2 && client !== null && packet.messageId !== undefined
    // Before publishing: a message that the client must send again must not be delivered.
    const refusal = isTwo ? this.#gates.holdIdentifier(client, packet.messageId ?? 0) : undefined
    if (refusal) {
      done(refusal)
      return
    }
    const early: EarlyPublish = isTwo ? pendingPublish() : { finished: false, error: undefined, waiting: [] }
    this.#early.set(packet, early)
    const onDone = (error?: Error): void => finish(early, error)
    const publication = { packet, client, stored: done, done: onDone }
    // A will has no identifier.
    this.#enqueue(isTwo ? { ...publication, early } : publication)
  }

  #unstoredOf(client: Client): Map<number, EarlyPublish> | undefined {
    return this.#exactlyOnce.get(this.#sessionOf(client))
  }

  #sessionOf(client: Client): object {
    return (client.clean ? undefined : this.#store.sessions.get(client.id)) ?? client
  }

  /** Acknowledges a message of QoS 2 whose identifier PUBREL has not released, as soon as its original is; returns whether it is one. */
  #acknowledgeRepetition(next: Publication, early: EarlyPublish): boolean {
    const { client, packet } = next
    if (!client) return false
    const id = packet.messageId ?? 0
    const unstored = this.#unstoredOf(client)
    const original = unstored?.get(id)
    if (original === early) return false
    if (!original && !this.#store.hasIncoming(client.id, id)) {
      if (unstored) unstored.set(id, early)
      else this.#exactlyOnce.set(this.#sessionOf(client), new Map([[id, early]]))
      return false
    }
    this.#finished(client, packet)
    this.#acknowledge(next, original?.due)
    early.settle?.(original?.due)
    next.done()
    return true
  }

  /**
   * Publishes a message of the gateway itself, such as one published over HTTP.
   *
   * @returns resolves when the message is stored and may be acknowledged
   * @throws {Error} rejects if it cannot be stored
   */
  publishInternal(publication: Pick<Publication, 'packet' | 'account' | 'append'>): Promise<void> {
    return new Promise((resolve, reject) => {
      const stored: Done = error => (error ? reject(error) : resolve())
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
    const { early, packet } = next
    if (this.#unwritten.size > 0 && this.#unwritten.holdBack(this.#accountOf(next), next)) return
    if (next.isDropped) {
      this.#delivered(next)
      return
    }
    if (early && this.#acknowledgeRepetition(next, early)) return
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
    this.#forgetIdentifier(current)
    current.early?.settle?.(Promise.reject(error ?? new Error('it could not be stored')))
    current.stored?.(error)
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
    const { packet, client, written, appended, isHugeSlotHeld, early } = publication
    this.#finished(client, packet)
    if (isHugeSlotHeld) void Promise.resolve(appended).then(() => this.#giveHugeSlot())
    const due = appended && written ? Promise.all([appended, written]) : (appended ?? written)
    early?.settle?.(due)
    this.#acknowledge(publication, due)
  }

  /** A message that could not be stored is new when it comes again. */
  #forgetIdentifier({ client, packet, early }: Publication): void {
    const id = packet.messageId ?? 0
    const unstored = client ? this.#unstoredOf(client) : undefined
    if (early && unstored?.get(id) === early) unstored.delete(id)
  }

  /**
   * Whether an acknowledgement of QoS 2 comes too late: Aedes would store the identifier for a connection that is over, and the next message
   * with it would count as a repetition. Where a session has no other connection, it is stored for the next one.
   */
  #isTooLate({ client, early }: Publication): boolean {
    if (!early || !client?.closed) return false
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
    if (!due) {
      stored()
      return
    }
    const sent = due.then(
      () => {
        if (!this.#isTooLate(publication)) stored()
      },
      error => {
        this.#forgetIdentifier(publication)
        stored(error)
      },
    )
    if (!client) return
    this.#hasDelayedAck = true
    this.#acknowledging.set(client, { sent, isAppendOnly })
  }
}

function pendingPublish(): EarlyPublish {
  let settle: (due: Promise<unknown> | undefined) => void = ignore
  const due = new Promise<unknown>(resolve => {
    settle = resolve
  })
  // A repetition gets the error.
  due.catch(ignore)
  return { finished: false, error: undefined, waiting: [], due, settle }
}

function finish(early: EarlyPublish, error?: Error): void {
  early.finished = true
  early.error = error
  for (const waiting of early.waiting) waiting(error)
}

/**
 * Without the publisher's DUP flag [MQTT-3.3.1-3], and without the broker id and counter of a will of an earlier run, which another message
 * may have.
 */
function cleanCopy(packet: PublishPacket): PublishPacket {
  const { topic, payload, qos, retain } = packet
  return { cmd: 'publish', topic, payload, qos, retain, dup: false, ...carried(propertiesOf(packet)) }
}

/** Whether a topic is reserved for the broker's own figures. */
function isSystemTopic(topic: string): boolean {
  return topic.startsWith('$SYS/') || topic === '$SYS'
}

function ignore(): void {}
