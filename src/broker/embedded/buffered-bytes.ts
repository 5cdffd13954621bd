import { FairQuota } from '../../base/fair-quota.js'
import type { PairEnd } from './stream-pair.js'

/** Interval between checks of the bytes that wait for clients, in milliseconds. */
const interval = 250

/** Smaller packets are not counted, because the number of connections bounds them. In bytes. */
const smallPacket = 64 * 1024

/** A connection of a client that may read, or send a large packet, slowly. */
export interface BufferingConnection {
  /** Quota key, shared by the connections of one address. */
  readonly account: string
  /** The broker's end. */
  readonly end: Pick<PairEnd, 'waitingBytes' | 'deliveredBytes'>
  cutOff(): void
}

/**
 * Bounds the bytes that all connections buffer: of incomplete packets, and of packets that clients have not read. Each connection has its
 * own bounds, but an address may have a thousand connections. Of each kind, one account has at most half of `max`, and no more than is left
 * for all others (`FairQuota`).
 */
export class BufferedBytes {
  cutOffs = 0
  readonly #max: number
  readonly #incoming: FairQuota
  readonly #connections = new Set<BufferingConnection>()
  readonly #delivered = new WeakMap<BufferingConnection, number>()
  #timer: NodeJS.Timeout | undefined

  /** @param max in bytes; at least two of the largest packets, because a packet larger than half of it never fits */
  constructor(max: number) {
    this.#max = max
    this.#incoming = new FairQuota(max)
  }

  /** Bytes of incomplete packets, counted by their full size. */
  get incoming(): number {
    return this.#incoming.total
  }

  add(connection: BufferingConnection): void {
    this.#connections.add(connection)
    this.#delivered.set(connection, connection.end.deliveredBytes)
    this.#timer ??= setInterval(() => this.#check(), interval).unref()
  }

  delete(connection: BufferingConnection): void {
    this.#connections.delete(connection)
    if (this.#connections.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /**
   * Counts `size` bytes of an incomplete packet for `account`, in place of `before`.
   *
   * @returns the counted bytes; `undefined` if they do not fit, and `before` still counts
   */
  hold(account: string, before: number, size: number): number | undefined {
    const wanted = size > smallPacket ? size : 0
    this.#incoming.giveBack(account, before)
    const fits = this.#incoming.exceededBy(account, wanted) === undefined
    this.#incoming.take(account, fits ? wanted : before)
    return fits ? wanted : undefined
  }

  /**
   * Closes connections of the accounts with the most waiting bytes, the slowest first, until no account has more than its share: those that
   * have read nothing since the last check, and others only where more than `max` bytes wait.
   */
  #check(): void {
    let total = 0
    const waiting = new Map<string, Waiting>()
    for (const connection of this.#connections) {
      const { account, end } = connection
      const { waitingBytes, deliveredBytes } = end
      const isIdle = this.#delivered.get(connection) === deliveredBytes
      this.#delivered.set(connection, deliveredBytes)
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

  /** Closes connections of one account until it has no more than is left for others; returns their waiting bytes. */
  #cutOff(account: Waiting, connections: BufferingConnection[], left: number): number {
    let bytes = 0
    for (const connection of connections.sort((a, b) => b.end.waitingBytes - a.end.waitingBytes)) {
      if (account.bytes <= left + bytes) break
      const { waitingBytes } = connection.end
      account.bytes -= waitingBytes
      bytes += waitingBytes
      this.cutOffs++
      connection.cutOff()
    }
    return bytes
  }
}

interface Waiting {
  bytes: number
  /** Connections that have read nothing since the last check, and the others. */
  readonly idle: BufferingConnection[]
  readonly busy: BufferingConnection[]
}
