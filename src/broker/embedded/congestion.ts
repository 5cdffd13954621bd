import type { PairEnd } from './stream-pair.js'

/** The broker's end of a subscriber's connection. */
export type CongestedEnd = Pick<PairEnd, 'waitingBytes' | 'deliveredBytes' | 'unwrittenBytes' | 'destroyed'>

export interface CongestionOptions<Client> {
  /** Waiting bytes from which a subscriber is congested, and its publishers wait. */
  readonly mark: number
  /** Maximum waiting bytes of a congested subscriber; the last message may exceed it. */
  readonly max: number
  /** The quota key of a client. */
  readonly accountOf: (client: Client) => string
  readonly now?: () => number
}

/** Interval between samples of congested subscribers, in milliseconds. */
const interval = 50
/** Publishers wait this long for a subscriber that reads nothing, in milliseconds. The kernel buffers, so that sockets read in bursts. */
const holdTime = 1000
/** A subscriber that reads nothing for this long is slow, in milliseconds. */
const stallTime = 5000
/** A subscriber that takes longer for its waiting bytes is slow, in milliseconds. */
const lagTime = 10_000
/** Maximum waiting messages of a congested subscriber, because of their overhead. */
const maxMessages = 16_384
/** Time for which one account's subscribers may delay other accounts' publishers, in milliseconds, and the share of time that refills it. */
const budget = 10_000
const refill = 0.1
/** Accounts with a remembered time. */
const maxAccounts = 10_000

/** A subscriber with more waiting bytes than the mark. */
interface CongestedSubscriber {
  readonly end: CongestedEnd
  readonly account: string
  /** Bytes read at the last sample, and samples since it last read. */
  delivered: number
  idle: number
  /** Bytes read when it has all that waited at one time, and samples since that time. */
  target: number
  lag: number
  /** Messages written since its buffer was last empty. */
  messages: number
  /** Whether other accounts' publishers waited for it since the last sample. */
  delaysOthers: boolean
}

/**
 * Distinguishes subscribers with a burst from slow ones. Publishers wait for the former while they read; the latter get no more messages. Time
 * is counted in samples, so that a stalled process makes nobody slow.
 *
 * A subscriber that reads nothing delays publishers for one second. The subscribers of one account delay other accounts for ten seconds at
 * once, and a tenth of the time in the long run.
 */
export class Congestion<Client extends object> {
  readonly #options: CongestionOptions<Client>
  readonly #now: () => number
  readonly #subscribers = new Map<Client, CongestedSubscriber>()
  /** By account: milliseconds that other accounts' publishers waited, less the refill until `at`. */
  readonly #spent = new Map<string, { time: number; at: number }>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: CongestionOptions<Client>) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
  }

  get size(): number {
    return this.#subscribers.size
  }

  /** Whether another message may be written to `client`, with `waiting` bytes, at or over the mark with this message. */
  mayJoin(client: Client, end: CongestedEnd, waiting: number): boolean {
    const subscriber = this.#subscribers.get(client) ?? this.#add(client, end)
    if (waiting < this.#options.mark) return true
    if (end.unwrittenBytes === 0) subscriber.messages = 0
    if (isSlow(subscriber) || waiting >= this.#options.max || subscriber.messages >= maxMessages) return false
    subscriber.messages++
    return true
  }

  /** Whether a publisher waits until `client` has read its message. */
  isWaitedFor(client: Client, publisher: Client): boolean {
    const subscriber = this.#subscribers.get(client)
    if (!subscriber || isStalled(subscriber)) return false
    if (subscriber.account === this.#options.accountOf(publisher)) return true
    if (this.#spentBy(subscriber.account) >= budget) return false
    subscriber.delaysOthers = true
    return true
  }

  /** Whether no publisher waits for `client`: it is slow, or has read nothing for a second. */
  isStalled(client: Client): boolean {
    const subscriber = this.#subscribers.get(client)
    return subscriber !== undefined && isStalled(subscriber)
  }

  #add(client: Client, end: CongestedEnd): CongestedSubscriber {
    const { deliveredBytes: delivered, waitingBytes } = end
    const account = this.#options.accountOf(client)
    const target = delivered + waitingBytes
    const subscriber = { end, account, delivered, idle: 0, target, lag: 0, messages: 0, delaysOthers: false }
    this.#subscribers.set(client, subscriber)
    this.#timer ??= setInterval(() => this.#check(), interval).unref()
    return subscriber
  }

  #check(): void {
    const holding = new Set<string>()
    for (const [client, subscriber] of this.#subscribers) {
      if (subscriber.delaysOthers) holding.add(subscriber.account)
      if (subscriber.end.destroyed || subscriber.end.waitingBytes < this.#options.mark) this.#subscribers.delete(client)
      else sample(subscriber)
    }
    for (const account of holding) this.#spend(account)
    if (this.#subscribers.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #spend(account: string): void {
    const time = this.#spentBy(account) + interval
    this.#spent.delete(account)
    this.#spent.set(account, { time, at: this.#now() })
    if (this.#spent.size <= maxAccounts) return
    for (const oldest of this.#spent.keys()) {
      this.#spent.delete(oldest)
      break
    }
  }

  #spentBy(account: string): number {
    const spent = this.#spent.get(account)
    return spent ? Math.max(0, spent.time - (this.#now() - spent.at) * refill) : 0
  }
}

function sample(subscriber: CongestedSubscriber): void {
  const { deliveredBytes, waitingBytes } = subscriber.end
  subscriber.idle = deliveredBytes === subscriber.delivered ? subscriber.idle + 1 : 0
  subscriber.delivered = deliveredBytes
  subscriber.delaysOthers = false
  if (deliveredBytes >= subscriber.target) {
    subscriber.target = deliveredBytes + waitingBytes
    subscriber.lag = 0
  } else subscriber.lag++
}

function isStalled(subscriber: CongestedSubscriber): boolean {
  return subscriber.idle * interval >= holdTime || isSlow(subscriber)
}

function isSlow({ idle, lag }: CongestedSubscriber): boolean {
  return idle * interval >= stallTime || lag * interval >= lagTime
}
