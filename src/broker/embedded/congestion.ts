/** The broker's end of a subscriber's connection. */
export interface CongestedEnd {
  /** Bytes that were written and the client has not taken. */
  readonly waitingBytes: number
  /** Bytes that the client has taken since it connected. */
  readonly deliveredBytes: number
  /** Those of the waiting bytes that wait message by message, at some 1 KiB for each besides. */
  readonly unwrittenBytes: number
  readonly destroyed: boolean
}

/** Bounds of congestion. */
export interface CongestionOptions<Client> {
  /** From how many waiting bytes on a subscriber is congested, and those who publish to it wait. */
  readonly mark: number
  /** How many bytes may wait for a congested subscriber, and the message that crosses it. */
  readonly most: number
  /** The quota key of a client. */
  readonly accountOf: (client: Client) => string
  readonly now?: () => number
}

/** How often congested subscribers are looked at, in milliseconds. */
const interval = 50
/** A subscriber that has taken nothing for so long is not waited for, in milliseconds. A socket takes bytes in lumps: the kernel buffers. */
const holdTime = 1000
/** A subscriber that has taken nothing for so long is slow, in milliseconds. */
export const stallTime = 5000
/** A subscriber that takes longer than this for what waits for it at one time is slow, in milliseconds. */
export const lagTime = 10_000
/** How many messages may wait for a congested subscriber, each with what it costs besides its bytes. */
const maxMessages = 16_384
/** For how long the subscribers of one account hold up publishers of others at once, in milliseconds, and then of each further one. */
const budget = 10_000
const refill = 0.1
/** Accounts whose spent time is remembered. */
const maxAccounts = 10_000

/** A subscriber for which more than the mark waits. */
interface Reader {
  readonly end: CongestedEnd
  readonly account: string
  /** What it had taken when it was looked at last, and how often it has been looked at since it took something. */
  taken: number
  idle: number
  /** What it will have taken when it has all that waited at one time, and how often it has been looked at since then. */
  target: number
  lag: number
  /** Messages that were written since all had room. */
  messages: number
  /** Whether publishers of other accounts have waited for it since the last look. */
  holds: boolean
}

/**
 * Tells subscribers with a burst before them from slow ones. Those who publish wait for the first as long as their sockets take
 * bytes; the others get no more. Time is counted in looks, so that nobody is slow because the process itself stood still.
 *
 * One who takes nothing holds publishers up for one second. The subscribers of one address or user hold up those of others for ten seconds
 * at once and a tenth of the time in the long run, however they read.
 */
export class Congestion<Client extends object> {
  readonly #options: CongestionOptions<Client>
  readonly #now: () => number
  readonly #readers = new Map<Client, Reader>()
  /** By account: milliseconds that publishers of others have waited, less what has been forgiven until `at`. */
  readonly #spent = new Map<string, { time: number; at: number }>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: CongestionOptions<Client>) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
  }

  /** Congested subscribers. */
  get size(): number {
    return this.#readers.size
  }

  /** Whether another message may be written to `client`, for which `waiting` bytes of messages wait and the mark is reached with this one. */
  mayJoin(client: Client, end: CongestedEnd, waiting: number): boolean {
    const reader = this.#readers.get(client) ?? this.#add(client, end)
    if (waiting < this.#options.mark) return true
    if (end.unwrittenBytes === 0) reader.messages = 0
    if (isSlow(reader) || waiting >= this.#options.most || reader.messages >= maxMessages) return false
    reader.messages++
    return true
  }

  /** Whether a publisher is to wait until `client` has taken its message. */
  isWaitedFor(client: Client, publisher: Client): boolean {
    const reader = this.#readers.get(client)
    if (!reader || isStalled(reader)) return false
    if (reader.account === this.#options.accountOf(publisher)) return true
    if (this.#spentBy(reader.account) >= budget) return false
    reader.holds = true
    return true
  }

  /** Whether nobody is to wait for `client`: it is slow, or has taken nothing for a second. */
  isStalled(client: Client): boolean {
    const reader = this.#readers.get(client)
    return reader !== undefined && isStalled(reader)
  }

  #add(client: Client, end: CongestedEnd): Reader {
    const { deliveredBytes: taken, waitingBytes } = end
    const account = this.#options.accountOf(client)
    const target = taken + waitingBytes
    const reader = { end, account, taken, idle: 0, target, lag: 0, messages: 0, holds: false }
    this.#readers.set(client, reader)
    this.#timer ??= setInterval(() => this.#check(), interval).unref()
    return reader
  }

  #check(): void {
    const holding = new Set<string>()
    for (const [client, reader] of this.#readers) {
      if (reader.holds) holding.add(reader.account)
      if (reader.end.destroyed || reader.end.waitingBytes < this.#options.mark) this.#readers.delete(client)
      else sample(reader)
    }
    for (const account of holding) this.#spend(account)
    if (this.#readers.size > 0) return
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

function sample(reader: Reader): void {
  const { deliveredBytes, waitingBytes } = reader.end
  reader.idle = deliveredBytes === reader.taken ? reader.idle + 1 : 0
  reader.taken = deliveredBytes
  reader.holds = false
  if (deliveredBytes >= reader.target) {
    reader.target = deliveredBytes + waitingBytes
    reader.lag = 0
  } else reader.lag++
}

function isStalled(reader: Reader): boolean {
  return reader.idle * interval >= holdTime || isSlow(reader)
}

function isSlow({ idle, lag }: Reader): boolean {
  return idle * interval >= stallTime || lag * interval >= lagTime
}
