import { FairQuota } from '../../base/fair-quota.js'

/** How often the bytes that wait for clients are added up, in milliseconds. */
const interval = 250

/** Smaller packets are not counted: the number of connections bounds them. In bytes. */
const smallPacket = 64 * 1024

/** A connection whose client may read slowly, or send a large packet slowly. */
export interface BufferingConnection {
  /** The quota key: connections of one address share it. */
  readonly account: string
  /** Bytes that were written and the client has not read. */
  readonly waitingBytes: number
  /** Bytes that the client has read since it connected. */
  readonly deliveredBytes: number
  /** Ends the connection at once, because its client reads too slowly. */
  cutOff(): void
}

/**
 * Bounds the bytes that the broker's connections hold together, of packets that are not complete and of packets that their clients have
 * not read: each connection has bounds of its own, and an address may have a thousand connections. One account holds half of `max` at
 * most, and no more than is left for all others (`FairQuota`); of each kind.
 */
export class BufferedBytes {
  /** Connections that were ended. */
  cutOffs = 0
  readonly #max: number
  readonly #incoming: FairQuota
  readonly #connections = new Set<BufferingConnection>()
  /** What they had read at the last look, in bytes. */
  readonly #taken = new WeakMap<BufferingConnection, number>()
  #timer: NodeJS.Timeout | undefined

  /** @param max in bytes; two of the largest packets at least, as a packet larger than half of it would never fit */
  constructor(max: number) {
    this.#max = max
    this.#incoming = new FairQuota(max)
  }

  /** Bytes of packets that are not complete: of their whole size, from their first byte on. */
  get incoming(): number {
    return this.#incoming.total
  }

  add(connection: BufferingConnection): void {
    this.#connections.add(connection)
    this.#taken.set(connection, connection.deliveredBytes)
    this.#timer ??= setInterval(() => this.#check(), interval).unref()
  }

  delete(connection: BufferingConnection): void {
    this.#connections.delete(connection)
    if (this.#connections.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /**
   * Has `account` hold `size` bytes of an incomplete packet instead of `before`.
   *
   * @returns the bytes that it holds now; `undefined` where they do not fit, and then it holds `before` still
   */
  hold(account: string, before: number, size: number): number | undefined {
    const wanted = size > smallPacket ? size : 0
    this.#incoming.giveBack(account, before)
    const fits = this.#incoming.exceededBy(account, wanted) === undefined
    this.#incoming.take(account, fits ? wanted : before)
    return fits ? wanted : undefined
  }

  /**
   * Ends connections of the account that most waits for, the slowest first, until everybody has no more than their share: those that have
   * read nothing since the last look, and others only where more than `max` waits.
   */
  #check(): void {
    let total = 0
    const waiting = new Map<string, Waiting>()
    for (const connection of this.#connections) {
      const { account, waitingBytes, deliveredBytes } = connection
      const isIdle = this.#taken.get(connection) === deliveredBytes
      this.#taken.set(connection, deliveredBytes)
      if (waitingBytes === 0) continue
      total += waitingBytes
      const entry = waiting.get(account) ?? { bytes: 0, idle: [], busy: [] }
      entry.bytes += waitingBytes
      entry[isIdle ? 'idle' : 'busy'].push(connection)
      waiting.set(account, entry)
    }
    if (total <= this.#max / 2) return
    const most = [...waiting.values()].sort((a, b) => b.bytes - a.bytes)
    for (const entry of most) total -= this.#cutOff(entry, entry.idle, this.#max - total)
    if (total > this.#max) for (const entry of most) total -= this.#cutOff(entry, entry.busy, this.#max - total)
  }

  /** Ends connections of one account until it holds no more than is left for others; returns the bytes that waited for them. */
  #cutOff(account: Waiting, connections: BufferingConnection[], left: number): number {
    let bytes = 0
    for (const connection of connections.sort((a, b) => b.waitingBytes - a.waitingBytes)) {
      if (account.bytes <= left + bytes) break
      const { waitingBytes } = connection
      account.bytes -= waitingBytes
      bytes += waitingBytes
      this.cutOffs++
      connection.cutOff()
    }
    return bytes
  }
}

/** What waits for the connections of one account. */
interface Waiting {
  bytes: number
  /** Those that have read nothing since the last look, and the others. */
  readonly idle: BufferingConnection[]
  readonly busy: BufferingConnection[]
}
