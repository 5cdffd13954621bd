import type { AedesPublishPacket, Client } from 'aedes'
import { TaskQueue } from '../../base/task-queue.js'
import type { TimeSlicer } from '../../base/time-slicer.js'
import { ByteBudget } from './byte-budget.js'
import { batchBytes, type Retained, type RetainedBatch } from './retained.js'
import type { PairEnd } from './stream-pair.js'

/** Steps of a scan without waiting for a time slice. */
const immediateSteps = 128
/** Filters scanned without waiting for a time slice. */
const immediateFilters = 64
/** Messages sent without waiting for a time slice. */
const immediateMessages = 8
/** Concurrent scans and reads. */
const concurrentBatches = 2
/** Bytes in memory of messages larger than a batch. */
const maxLargeBytes = 64 * 1024 ** 2
/** Time without a read of such a message, in milliseconds, after which a client is closed if others wait. */
const stallTimeout = 10_000

export interface RetainedDeliveryOptions {
  readonly retained: Retained
  readonly slicer: TimeSlicer
  readonly brokerEndOf: (client: Client) => Pick<PairEnd, 'waitingBytes'> | undefined
  /** Quota key of a client: its user or network. */
  readonly accountOf: (client: Client) => string
  /** Sends a message; see `Delivery.retained`. */
  readonly send: (client: Client, packet: AedesPublishPacket, done: () => void) => boolean
  readonly cutOff: (client: Client) => void
  readonly onError: (error: unknown) => void
}

/**
 * Sends matching retained messages to new subscribers [MQTT-3.8.4-3].
 *
 * A client has one scan at a time; filters subscribed meanwhile make up the next one. Scans run in time slices shared by accounts, continue
 * when the client has read the last batch, and end with its connection.
 */
export class RetainedDelivery {
  readonly #options: RetainedDeliveryOptions
  /** Filters for the next scan, of clients with a scan. */
  readonly #waiting = new WeakMap<Client, Set<string>>()
  readonly #queue = new TaskQueue({
    concurrent: concurrentBatches,
    // At most one for each connection (`limits.connections`).
    waiting: Number.POSITIVE_INFINITY,
    waitingPerKey: Number.POSITIVE_INFINITY,
  })
  readonly #large = new ByteBudget(maxLargeBytes)
  #scans = 0

  constructor(options: RetainedDeliveryOptions) {
    this.#options = options
  }

  get scans(): number {
    return this.#scans
  }

  /** Call with the granted filters after SUBACK. */
  subscribed(client: Client, filters: readonly string[]): void {
    if (filters.length === 0) return
    const waiting = this.#waiting.get(client)
    if (waiting) {
      for (const filter of filters) waiting.add(filter)
      return
    }
    void this.#run(client, filters)
  }

  unsubscribed(client: Client, filters: readonly string[]): void {
    const waiting = this.#waiting.get(client)
    if (waiting) for (const filter of filters) waiting.delete(filter)
  }

  async #run(client: Client, filters: readonly string[]): Promise<void> {
    const waiting = new Set(filters)
    this.#waiting.set(client, waiting)
    this.#scans++
    try {
      while (waiting.size > 0 && this.#isOpen(client)) {
        const next = [...waiting]
        waiting.clear()
        await this.#deliver(client, next)
      }
    } catch (error) {
      this.#options.onError(error)
    } finally {
      this.#scans--
      this.#waiting.delete(client)
    }
  }

  async #deliver(client: Client, filters: readonly string[]): Promise<void> {
    const { retained, slicer, accountOf } = this.#options
    const account = accountOf(client)
    // The first step takes time for each filter.
    if (filters.length > immediateFilters) await slicer.next('retained messages')
    let steps = 0
    let isOver = (): boolean => ++steps >= immediateSteps
    const scan = retained.scan(filters, () => isOver())
    let batch = scan.next().value
    isOver = () => slicer.isOver
    const isLong = batch && batch.topics.length > immediateMessages
    if (isLong) await this.#queue.run(account, () => slicer.next('retained messages'))
    while (batch) {
      if (batch.topics.length > 0) await this.#send(client, account, batch)
      if (batch.isLast || !this.#isOpen(client)) return
      batch = await this.#queue.run(account, async () => {
        await slicer.next('retained messages')
        return this.#isOpen(client) ? scan.next().value : undefined
      })
    }
  }

  async #send(client: Client, account: string, batch: RetainedBatch): Promise<void> {
    // Also in memory: a connection copies what it cannot write yet.
    if (batch.bytes <= batchBytes) {
      await this.#write(client, await this.#read(client, account, batch))
      return
    }
    const release = await this.#large.reserve(account, batch.bytes)
    const watch = this.#watch(client)
    try {
      await this.#write(client, await this.#read(client, account, batch))
    } finally {
      clearInterval(watch)
      release()
    }
  }

  async #read(client: Client, account: string, { topics }: RetainedBatch): Promise<readonly AedesPublishPacket[]> {
    if (!this.#isOpen(client)) return []
    const { retained } = this.#options
    return retained.isMemory ? retained.read(topics) : this.#queue.run(account, () => retained.read(topics))
  }

  /** Resolves when the client has room for more, or its connection is closed. */
  #write(client: Client, packets: readonly AedesPublishPacket[]): Promise<void> {
    return new Promise(resolve => {
      let left = packets.length
      if (left === 0 || !this.#isOpen(client)) {
        resolve()
        return
      }
      const finish = (): void => {
        client.conn.removeListener('close', finish)
        resolve()
      }
      const done = (): void => {
        if (--left === 0) finish()
      }
      client.conn.once('close', finish)
      for (const packet of packets) if (this.#options.send(client, packet, done)) done()
    })
  }

  #isOpen(client: Client): boolean {
    return !client.closed && this.#options.brokerEndOf(client) !== undefined
  }

  /** Closes a client that reads nothing while others wait for the memory of its message. */
  #watch(client: Client): NodeJS.Timeout {
    const { brokerEndOf, cutOff } = this.#options
    let before = Number.POSITIVE_INFINITY
    return setInterval(() => {
      const now = brokerEndOf(client)?.waitingBytes ?? 0
      if (now > 0 && now >= before && this.#large.waiting > 0) cutOff(client)
      before = now
    }, stallTimeout).unref()
  }
}
