import { FairQuota } from '../base/fair-quota.js'

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
    this.#timer ??= setInterval(() => this.#look(), interval).unref()
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

  /** Ends connections of the account that most waits for, the slowest first, until everybody has no more than their share. */
  #look(): void {
    const waiting = new Map<string, { bytes: number; readonly connections: BufferingConnection[] }>()
    let total = 0
    for (const connection of this.#connections) {
      const { account, waitingBytes } = connection
      if (waitingBytes === 0) continue
      total += waitingBytes
      const entry = waiting.get(account) ?? { bytes: 0, connections: [] }
      entry.bytes += waitingBytes
      entry.connections.push(connection)
      waiting.set(account, entry)
    }
    if (total <= this.#max / 2) return
    for (const { bytes, connections } of [...waiting.values()].sort((a, b) => b.bytes - a.bytes)) {
      let own = bytes
      for (const connection of connections.sort((a, b) => b.waitingBytes - a.waitingBytes)) {
        if (own <= this.#max - total) break
        const { waitingBytes } = connection
        own -= waitingBytes
        total -= waitingBytes
        this.cutOffs++
        connection.cutOff()
      }
    }
  }
}
