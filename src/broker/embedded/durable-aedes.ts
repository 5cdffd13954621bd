import { Aedes, type AedesOptions, type AedesPublishPacket, type Client, type PublishPacket } from 'aedes'
import { FairQueue } from '../../base/fair-queue.js'
import { Dispatcher, type DispatcherHooks } from './dispatcher.js'
import type { LiveSubscriptions } from './live-subscriptions.js'
import type { AcceptedMessage, MessageSink } from './message-sink.js'
import { SessionMaps } from './session-maps.js'
import type { Store } from './store.js'
import { type TickScheduler, TickSlice } from './tick-scheduler.js'
import { type PendingWrite, UnwrittenMessages } from './unwritten-messages.js'

declare module 'aedes' {
  interface Aedes {
    /** The form in which Aedes itself calls it; its type declarations leave this out, and the event below. */
    publish(packet: PublishPacket, client: Client | null, done?: Done): void
    on(event: 'error', listener: (error: unknown) => void): this
  }
}

type Done = (error?: Error) => void

/** Messages with more payload than this, in bytes, are appended to the journal one at a time. */
const hugeMessage = 256 * 1024

/** Messages with more payload than this, in bytes, count towards the time in which their publisher lets others wait. */
const largeMessage = 16 * 1024

/** Whether a client's message goes on; if not, it is acknowledged and dropped, or ends the connection with the error. */
type Screen = (client: Client, topic: string) => boolean | Error

/** What is asked about messages. */
interface Gates {
  /** The quota key of a publisher; `null` is the broker, or a client of an earlier run. */
  readonly accountOf: (client: Client | null) => string
  readonly screen: Screen
  /** Told of a message of a client to a topic of `$SYS`, which is acknowledged and goes to nobody. */
  readonly ignored: (client: Client, topic: string) => void
  /** Notes a packet identifier of QoS 2; returns an error where the client may not have one more before its PUBREL. */
  readonly holdIdentifier: (client: Client, id: number) => Error | undefined
  /** Told of the payloads of a client's large messages, in bytes: when one waits to be published, and, negative, when it has been. */
  readonly onProgress: (client: Client, bytes: number) => void
  /** For which subscribers publishers wait. */
  readonly backpressure: Pick<DispatcherHooks, 'isAnyCongested' | 'isStalled' | 'isWaitedFor' | 'onWait'>
}

/** One message on its way in. */
interface Publication {
  readonly packet: PublishPacket
  readonly client: Client | null
  /** Quota key of its publisher, each of which has a queue of its own; that of the client where it is left out. */
  readonly account?: string | undefined
  /** Appends it to the journal, in place of the sink's `append`. */
  readonly append?: MessageSink['append'] | undefined
  /** Resolves when its acknowledgement may be sent; `undefined` where that need not wait for the journal. */
  appended?: Promise<void> | undefined
  /** Called when it is stored wherever it has to be, or could not be; without, nobody waits for that. */
  readonly stored?: Done
  /** Called when it has been handed to the subscribers. */
  readonly done: Done
  /** What has to be written before its acknowledgement. */
  written?: Promise<void> | undefined
  /** Whether it is the huge message that is being appended. */
  isHugeSlotHeld?: boolean
  /** Whether it is acknowledged in its turn, and goes to nobody. */
  readonly isDropped?: boolean
  /** Asked when its turn has come: whether it was published before, and is not to be again. */
  readonly isRepeated?: (() => Promise<boolean>) | undefined
}

/** A message of the program itself: one that was published over HTTP, say. */
export interface InternalPublication {
  readonly packet: PublishPacket
  /** Quota key of whoever publishes it; left out for the program itself. */
  readonly account: string | undefined
  /** Appends it to the journal, in place of the sink's `append`. */
  readonly append: MessageSink['append']
}

/** A message that was published before its acknowledgement: what became of it, for the publish that follows. */
interface EarlyPublish {
  finished: boolean
  error: Error | undefined
  waiting: Done[]
}

/**
 * Aedes, made to keep its word and its order.
 *
 * - It writes PUBACK first and stores the message then; a crash in between loses an acknowledged message. For QoS 2 it
 *   stores the packet identifier first, and takes the message that is sent again after a crash for a duplicate. Here both
 *   are published while they are being authorized, which is the step before, and not again after it. After a crash in
 *   between, a message of QoS 2 may come twice: the lesser harm.
 * - It stores concurrently and takes a message that comes out of turn for a duplicate, which it drops. Here messages
 *   leave for the subscribers one by one, in the order in which they came, and do not wait for the disk.
 * - A message is acknowledged when it is written wherever it has to be: in sessions' queues, as a retained message, in the journal. An account
 *   of which much waits to be written waits with its further messages, and no other account does.
 * - Messages that many filters match take their time: they leave in slices, and the users and networks that publish take turns.
 */
export class DurableAedes extends Aedes {
  readonly #store: Store
  readonly #gates: Gates
  readonly #early = new WeakMap<PublishPacket, EarlyPublish>()
  /** By session and packet identifier: messages of QoS 2 on their way to where the store has the identifier. */
  readonly #exactlyOnce = new SessionMaps<EarlyPublish>()
  readonly #queue = new FairQueue<Publication>()
  readonly #slice: TickSlice
  readonly #unwritten: UnwrittenMessages<Publication>
  #sink: MessageSink | undefined
  /** By client: resolves when its last acknowledgement that had to wait is given. */
  readonly #acknowledging = new WeakMap<Client, Promise<void>>()
  /** Whether a huge message is on its way to the journal, and those that wait for it. */
  #isHugeSlotTaken = false
  readonly #waitingHuge: (() => void)[] = []
  /** Messages that have not left for their subscribers. */
  #inProgress = 0
  readonly #onIdle: (() => void)[] = []
  /** Whether any acknowledgement ever had to wait. */
  #hasWaited = false
  #pausing = false
  #current: Publication | undefined
  /** The message that is being given to its subscribers, in this turn. */
  #dispatched: Publication | undefined

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
    // Concurrency is the dispatcher's business; 0 also leaves the number of listeners on a connection alone.
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
    onEmit = packet => this.#leave(packet)
    onEmitted = () => {
      const leaving = this.#dispatched
      this.#dispatched = undefined
      if (leaving) this.#left(leaving)
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
    // Aedes has stored the identifier by now.
    if (client && packet.messageId !== undefined) this.#exactlyOnce.delete(client, packet.messageId)
  }

  /** Also asked for wills; those that an earlier run left behind come without their client. */
  #authorize(client: Client | null, packet: PublishPacket, done: Done): void {
    // A will that an earlier run left behind was screened when its CONNECT came, and is not of whoever is there now.
    const verdict = client && !('brokerId' in packet) ? this.#gates.screen(client, packet.topic) : true
    const isIgnored = verdict === true && isSystemTopic(packet.topic)
    if (isIgnored && client) this.#gates.ignored(client, packet.topic)
    if (verdict === false || isIgnored) this.#drop(client, packet, done)
    else if (verdict === true) this.#prepare(client, packet, done)
    else done(verdict)
  }

  /** MQTT 3.1.1 has no answer for a message that is not allowed: it is acknowledged like others [MQTT-3.3.5-2]. */
  #drop(client: Client | null, packet: PublishPacket, done: Done): void {
    const early: EarlyPublish = { finished: false, error: undefined, waiting: [] }
    this.#early.set(packet, early)
    // Not at once: see the dispatcher.
    setImmediate(finish, early)
    this.#enqueue({ packet, client, isDropped: true, stored: done, done: ignore })
  }

  /** Stores what has to be stored before Aedes acknowledges it. */
  #prepare(client: Client | null, packet: PublishPacket, done: Done): void {
    if (packet.qos === 0) {
      done()
      return
    }
    const isTwo = packet.qos === 2 && client !== null && packet.messageId !== undefined
    // Before it is published: a message that the client has to send again must not have been passed on.
    const refusal = isTwo ? this.#gates.holdIdentifier(client, packet.messageId ?? 0) : undefined
    if (refusal) {
      done(refusal)
      return
    }
    const early: EarlyPublish = { finished: false, error: undefined, waiting: [] }
    this.#early.set(packet, early)
    const onDone = (error?: Error): void => finish(early, error)
    const publication = { packet, client, stored: done, done: onDone }
    // A will has no identifier.
    if (!isTwo) this.#enqueue(publication)
    else this.#enqueue({ ...publication, isRepeated: () => this.#isRepeated(client, packet, early) })
  }

  /** Whether `packet` of QoS 2 has come before under its identifier, which PUBREL has not released since. */
  async #isRepeated(client: Client, packet: PublishPacket, early: EarlyPublish): Promise<boolean> {
    const id = packet.messageId ?? 0
    if (this.#exactlyOnce.has(client, id) || (await this.#store.hasIncoming(client, packet))) return true
    this.#exactlyOnce.set(client, id, early)
    return false
  }

  /**
   * Publishes a message of the program itself.
   *
   * @returns resolves when the message is stored and its acknowledgement could be sent
   * @throws {Error} rejects where it cannot be stored
   */
  publishInternal({ packet, account, append }: InternalPublication): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#enqueue({
        packet,
        client: null,
        account,
        append,
        stored: error => (error ? reject(error) : resolve()),
        done: ignore,
      })
    })
  }

  /**
   * Has each message appended to a journal when it leaves for its subscribers: acknowledgements wait for that, and further messages wait
   * while the sink is full.
   */
  setSink(sink: MessageSink): void {
    this.#sink = sink
  }

  /** Publishes what waits for room in the sink. */
  resume(): void {
    if (this.#queue.size > 0) queueMicrotask(() => this.#advance())
  }

  #accountOf({ account, client }: Publication): string {
    return account ?? this.#gates.accountOf(client)
  }

  /** Resolves when no message is on its way to its subscribers. */
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

  /** Whether a message may be published now. If not, `#advance` is called when one may. */
  #mayBegin(): boolean {
    // The slice last: it calls back when it is over.
    return !this.#current && !this.#pausing && !this.#sink?.isFull && !this.#slice.isOver
  }

  #begin(next: Publication): void {
    const { isRepeated, packet } = next
    if (this.#unwritten.size > 0 && this.#unwritten.holdBack(this.#accountOf(next), next)) return
    if (next.isDropped) {
      this.#left(next)
      return
    }
    if (isRepeated) {
      this.#unwritten.waitFor(this.#accountOf(next), this.#leaveOutRepeated(next, isRepeated))
      return
    }
    if (this.#isHuge(next) && !this.#takeHugeSlot(next)) return
    const { length } = packet.payload
    // It takes as much of the journal's time, and of the subscribers'.
    if (length > largeMessage) this.#queue.charge(this.#accountOf(next), length)
    this.#current = next
    this.#publish(next)
  }

  #isHuge({ packet }: Publication): boolean {
    return this.#sink !== undefined && packet.payload.length > hugeMessage
  }

  /** Has a huge message wait for the one before it, and those of its account with it; those of other accounts pass. */
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

  /** Has a message acknowledged that was published before; returns one that was not. */
  async #leaveOutRepeated(next: Publication, isRepeated: () => Promise<boolean>): Promise<Publication | undefined> {
    if (!(await isRepeated())) return { ...next, isRepeated: undefined }
    this.#left(next)
    next.done()
    return undefined
  }

  #publish(next: Publication): void {
    if (next.packet.retain) this.#store.publisher = this.#accountOf(next)
    super.publish(cleanCopy(next.packet), next.client, error => {
      if (this.#current === next) this.#giveUp(next, error)
      next.done(error)
    })
  }

  /** The current message could not be stored. */
  #giveUp(current: Publication, error: Error | undefined): void {
    this.#store.takeWrites()
    this.#current = undefined
    this.#finished(current.client, current.packet)
    if (current.isHugeSlotHeld) this.#giveHugeSlot()
    current.stored?.(error)
    if (this.#queue.size > 0) queueMicrotask(() => this.#advance())
  }

  /** The current message is stored, and leaves. */
  #leave(packet: AedesPublishPacket): void {
    const current = this.#current
    if (!current) return
    this.#dispatched = current
    this.#current = undefined
    const write = this.#store.takeWrites()
    if (write) this.#track(current, write)
    if (this.#sink) {
      const append = current.append ?? ((message, isAwaited) => this.#sink?.append(message, isAwaited))
      current.appended = append(
        acceptedMessage(packet),
        current.stored !== undefined || current.isHugeSlotHeld === true,
      )
    }
    // Not at once, because the message that leaves is yet to be given to its subscribers.
    if (this.#queue.size > 0) queueMicrotask(() => this.#advance())
  }

  /** A message has been given to its subscribers, or goes to nobody. */
  #left({ packet, stored, client, written, appended, isHugeSlotHeld }: Publication): void {
    this.#finished(client, packet)
    if (isHugeSlotHeld) void Promise.resolve(appended).then(() => this.#giveHugeSlot())
    this.#settle(client, stored, appended && written ? Promise.all([appended, written]) : (appended ?? written))
  }

  #track(current: Publication, write: PendingWrite): void {
    current.written = write.written
    this.#unwritten.add(this.#accountOf(current), write)
    // Those who wait for the acknowledgement get the error otherwise.
    if (!current.stored) write.written.catch(error => this.emit('error', error))
    if (!write.isForMany) return
    // To match so many sessions takes a while: the next message does so in another turn of the event loop.
    this.#pausing = true
    setImmediate(() => {
      this.#pausing = false
      this.#advance()
    })
  }

  /** Has a message acknowledged when it is written, and those of its client before it are acknowledged [MQTT-4.6.0-2]. */
  #settle(client: Client | null, stored: Done | undefined, written: Promise<unknown> | undefined): void {
    if (!stored) return
    const earlier = client && this.#hasWaited ? this.#acknowledging.get(client) : undefined
    const due = earlier ? earlier.then(() => written) : written
    if (!due) {
      stored()
      return
    }
    const acknowledged = due.then(() => stored(), stored)
    if (!client) return
    this.#hasWaited = true
    this.#acknowledging.set(client, acknowledged)
  }
}

function finish(early: EarlyPublish, error?: Error): void {
  early.finished = true
  early.error = error
  for (const waiting of early.waiting) waiting(error)
}

export function acceptedMessage({ topic, payload, qos, retain }: AedesPublishPacket): AcceptedMessage {
  return { topic, payload: typeof payload === 'string' ? Buffer.from(payload) : payload, qos, retain }
}

/**
 * Without what belongs to the way here: the publisher's DUP flag [MQTT-3.3.1-3], and the broker id and counter of the
 * run that stored a will, under which another message may be queued.
 */
function cleanCopy({ topic, payload, qos, retain }: PublishPacket): PublishPacket {
  return { cmd: 'publish', topic, payload, qos, retain, dup: false }
}

/** Whether a topic is one under which brokers tell of themselves. */
function isSystemTopic(topic: string): boolean {
  return topic.startsWith('$SYS/') || topic === '$SYS'
}

function ignore(): void {}
