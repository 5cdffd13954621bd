import { Aedes, type AedesOptions, type Client, type PublishPacket } from 'aedes'
import { FairQueue } from '../base/fair-queue.js'
import { Dispatcher, type DispatcherHooks } from './dispatcher.js'
import type { LiveSubscriptions } from './live-subscriptions.js'
import { SessionMaps } from './session-maps.js'
import type { Store } from './store.js'
import type { TurnEnd } from './turn-end.js'
import { TurnSlice } from './turn-slice.js'

declare module 'aedes' {
  interface Aedes {
    /** The form in which Aedes itself calls it; its type declarations leave this out, and the event below. */
    publish(packet: PublishPacket, client: Client | null, done?: Done): void
    on(event: 'error', listener: (error: unknown) => void): this
  }
}

type Done = (error?: Error) => void

/** Messages with more payload than this, in bytes, count towards the time in which their publisher lets others wait. */
const largeMessage = 16 * 1024

/** Messages of the program's own (what is published over HTTP) that are queued for many sessions at a time, before the next ones wait. */
const maxUnheld = 8

/** Whether a client's message goes on; if not, it is acknowledged and dropped, or ends the connection with the error. */
type Screen = (client: Client, topic: string) => boolean | Error

/** Calls back when a message may go on: at once, as a rule. Messages keep their order. */
type Admit = (proceed: () => void) => void

/** Holds acknowledgements back until the program's own session has kept the messages. */
interface Acknowledgements {
  begin(): void
  settle(client: Client | null, release: () => void): void
}

/** What is asked about messages. */
interface Gates {
  /** The quota key of a publisher; `null` is the broker, or a client of an earlier run. */
  readonly accountOf: (client: Client | null) => string
  readonly screen: Screen
  readonly admit: Admit
  /**
   * The key of those whose messages wait for each other where one of them is queued for many sessions; `undefined` for those that never wait.
   */
  readonly holder: (client: Client) => string | undefined
  /** Who holds acknowledgements back, if anybody does. */
  readonly custody: () => Acknowledgements | undefined
  /** Told of a message of a client to a topic of `$SYS`, which is acknowledged and goes to nobody. */
  readonly ignored: (client: Client, topic: string) => void
  /** Notes a packet identifier of QoS 2; returns an error where the client may not have one more before its PUBREL. */
  readonly holdIdentifier: (client: Client, id: number) => Error | undefined
  /** For which subscribers publishers wait. */
  readonly patience: Pick<DispatcherHooks, 'isAnyCongested' | 'isStalled' | 'isWaitedFor' | 'onWait'>
}

/** One message on its way in. */
interface Publication {
  readonly packet: PublishPacket
  readonly client: Client | null
  /** Called when it is stored wherever it has to be, or could not be; without, nobody waits for that. */
  readonly stored?: Done
  /** Called when it has been handed to the subscribers. */
  readonly done: Done
  /** Resolves when it is queued for all sessions, where that takes longer than until it leaves. */
  rest?: Promise<void> | undefined
  /** Asked when its turn has come: whether it was published before, and is not to be again. */
  readonly isRepeated?: () => Promise<boolean>
}

/** A message that was published before its acknowledgement: what became of it, for the publish that follows. */
interface Early {
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
 *   leave for the subscribers one by one, in the order in which they came. Only one that is queued for many sessions without their client
 *   leaves before that is done: it is acknowledged then, and the next messages of the same user or network wait for that, and nobody else's.
 * - What the program's own session keeps is acknowledged when it has. Only the acknowledgement waits.
 * - Messages that many filters match take their time: they leave in slices, and the users and networks that publish take turns.
 */
export class DurableAedes extends Aedes {
  readonly #store: Store
  readonly #gates: Gates
  readonly #early = new WeakMap<PublishPacket, Early>()
  /** By session and packet identifier: messages of QoS 2 on their way to where the store has the identifier. */
  readonly #exactlyOnce = new SessionMaps<Early>()
  readonly #line = new FairQueue<Publication>()
  readonly #slice: TurnSlice
  /** By holder: what waits until a message of the same holder is queued for all sessions. */
  readonly #behind = new Map<string, Publication[]>()
  /** Messages of the program's own that are being queued for many sessions. */
  #unheld = 0
  #pausing = false
  #current: Publication | undefined
  /** The message that is being given to its subscribers, in this turn. */
  #leaving: Publication | undefined

  constructor(
    store: Store,
    gates: Gates,
    subscriptions: LiveSubscriptions,
    turnEnd: TurnEnd,
    options: Omit<AedesOptions, 'mq' | 'persistence' | 'authorizePublish' | 'concurrency'>,
  ) {
    let [onEmit, onEmitted] = [ignore, ignore]
    let publisher: () => Client | undefined = () => undefined
    // Concurrency is the dispatcher's business; 0 also leaves the number of listeners on a connection alone.
    super({
      ...options,
      persistence: store,
      concurrency: 0,
      mq: new Dispatcher(subscriptions, {
        onEmit: () => onEmit(),
        onEmitted: () => onEmitted(),
        publisher: () => publisher(),
        ...gates.patience,
      }),
    })
    this.#store = store
    this.#gates = gates
    this.#slice = new TurnSlice(turnEnd, () => this.#advance())
    onEmit = () => this.#leave()
    onEmitted = () => this.#left()
    publisher = () => this.#leaving?.client ?? undefined
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
    const isIgnored = verdict === true && isOfBrokers(packet.topic)
    if (isIgnored && client) this.#gates.ignored(client, packet.topic)
    if (verdict === false || isIgnored) this.#drop(client, packet, done)
    else if (verdict === true) this.#gates.admit(() => this.#prepare(client, packet, done))
    else done(verdict)
  }

  /** MQTT 3.1.1 has no answer for a message that is not allowed: it is acknowledged like others [MQTT-3.3.5-2]. */
  #drop(client: Client | null, packet: PublishPacket, done: Done): void {
    const early: Early = { finished: false, error: undefined, waiting: [] }
    this.#early.set(packet, early)
    // Not at once: see the dispatcher.
    setImmediate(finish, early)
    this.#settle(client, done)
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
    const early: Early = { finished: false, error: undefined, waiting: [] }
    this.#early.set(packet, early)
    const publication = { packet, client, stored: done, done: (error?: Error) => finish(early, error) }
    // A will has no identifier.
    if (!isTwo) this.#enqueue(publication)
    else this.#enqueue({ ...publication, isRepeated: () => this.#isRepeated(client, packet, early) })
  }

  /** Whether `packet` of QoS 2 has come before under its identifier, which PUBREL has not released since. */
  async #isRepeated(client: Client, packet: PublishPacket, early: Early): Promise<boolean> {
    const id = packet.messageId ?? 0
    if (this.#exactlyOnce.has(client, id) || (await this.#store.hasIncoming(client, packet))) return true
    this.#exactlyOnce.set(client, id, early)
    return false
  }

  #enqueue(publication: Publication): void {
    if (this.#line.size === 0 && this.#mayBegin()) this.#begin(publication)
    else this.#line.push(this.#holderOf(publication.client) ?? '', publication)
  }

  /** Whether a message may be published now. If not, `#advance` is called when one may. */
  #mayBegin(): boolean {
    return !this.#current && !this.#pausing && !this.#slice.isOver
  }

  #begin(next: Publication): void {
    if (this.#isBehind(next)) return
    const { length } = next.packet.payload
    // All others wait while it is stored.
    if (length > largeMessage) this.#line.charge(this.#holderOf(next.client) ?? '', length)
    this.#current = next
    if (next.isRepeated) void this.#publishOnce(next, next.isRepeated)
    else this.#publish(next)
  }

  #advance(): void {
    while (this.#line.size > 0 && this.#mayBegin()) {
      const next = this.#line.shift()
      if (next) this.#begin(next)
    }
  }

  #holderOf(client: Client | null): string | undefined {
    return client ? this.#gates.holder(client) : undefined
  }

  /** Whether it waits behind a message of the same holder. */
  #isBehind(next: Publication): boolean {
    if (this.#behind.size === 0 || !next.client) return false
    const behind = this.#behind.get(this.#gates.holder(next.client) ?? '')
    behind?.push(next)
    return behind !== undefined
  }

  /** The current message leaves before it is queued for all sessions. */
  #leaveBefore(rest: Promise<void>, client: Client | null): void {
    // To match so many sessions takes a while: the next message does so in another turn of the event loop.
    this.#pausing = true
    setImmediate(() => {
      this.#pausing = false
      this.#advance()
    })
    const named = this.#holderOf(client)
    if (named === undefined) {
      this.#unheld++
      const finished = (): void => void this.#unheld--
      rest.then(finished, finished)
      if (this.#unheld < maxUnheld) return
    }
    const holder = named ?? ''
    this.#behind.set(holder, [])
    const goOn = (): void => {
      this.#line.unshift(holder, this.#behind.get(holder) ?? [])
      this.#behind.delete(holder)
      this.#advance()
    }
    // After it has been acknowledged: in the order in which they came [MQTT-4.6.0-2].
    rest.then(
      () => setImmediate(goOn),
      () => setImmediate(goOn),
    )
  }

  async #publishOnce(next: Publication, isRepeated: () => Promise<boolean>): Promise<void> {
    if (!(await isRepeated())) {
      this.#publish(next)
      return
    }
    this.#current = undefined
    this.#settle(next.client, next.stored)
    next.done()
    this.#advance()
  }

  #publish(next: Publication): void {
    if (next.packet.retain) this.#store.publisher = this.#gates.accountOf(next.client)
    super.publish(cleanCopy(next.packet), next.client, error => {
      if (this.#current === next) this.#giveUp(next, error)
      next.done(error)
    })
  }

  /** The current message could not be stored. */
  #giveUp(current: Publication, error: Error | undefined): void {
    this.#store.takeRest()
    this.#current = undefined
    current.stored?.(error)
    if (this.#line.size > 0) queueMicrotask(() => this.#advance())
  }

  /** The current message is stored, and leaves. */
  #leave(): void {
    const current = this.#current
    if (!current) return
    this.#leaving = current
    this.#current = undefined
    current.rest = this.#store.takeRest()
    if (current.rest) this.#leaveBefore(current.rest, current.client)
    this.#gates.custody()?.begin()
    // Not at once, because the message that leaves is yet to be given to its subscribers.
    if (this.#line.size > 0) queueMicrotask(() => this.#advance())
  }

  /** The message that was leaving has been given to them. */
  #left(): void {
    const { stored, client = null, rest } = this.#leaving ?? {}
    this.#leaving = undefined
    this.#settle(client, rest && stored ? after(rest, stored) : stored)
  }

  /** Has a message acknowledged, when its turn has come. */
  #settle(client: Client | null, stored: Done | undefined): void {
    if (!stored) return
    const custody = this.#gates.custody()
    if (custody) custody.settle(client, () => stored())
    else stored()
  }
}

/** Calls `done` when `rest` is done, too; at once where it is. */
function after(rest: Promise<void>, done: Done): Done {
  let result: { readonly error?: Error } | undefined
  let waiting: (() => void) | undefined
  const settle = (error?: Error): void => {
    result = error ? { error } : {}
    waiting?.()
  }
  rest.then(() => settle(), settle)
  return error => {
    const settled = (): void => done(error ?? result?.error)
    if (result) settled()
    else waiting = settled
  }
}

function finish(early: Early, error?: Error): void {
  early.finished = true
  early.error = error
  for (const waiting of early.waiting) waiting(error)
}

/**
 * Without what belongs to the way here: the publisher's DUP flag [MQTT-3.3.1-3], and the broker id and counter of the
 * run that stored a will, under which another message may be queued.
 */
function cleanCopy({ topic, payload, qos, retain }: PublishPacket): PublishPacket {
  return { cmd: 'publish', topic, payload, qos, retain, dup: false }
}

/** Whether a topic is one under which brokers tell of themselves. */
function isOfBrokers(topic: string): boolean {
  return topic.startsWith('$SYS/') || topic === '$SYS'
}

function ignore(): void {}
