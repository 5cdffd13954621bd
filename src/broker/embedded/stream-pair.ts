import { Duplex } from 'node:stream'
import type { Client } from 'aedes'
import type { ClientSession } from '../../base/connected-clients.js'
import type { GatewayError } from '../../base/errors.js'
import { ChunkQueue, ConcatCache, join } from './chunk-queue.js'
import { TickScheduler } from './tick-scheduler.js'

/** Maximum bytes written at the broker's end in one event-loop tick before `write` returns false. */
const maxBytesPerTick = 64 * 1024

/** Maximum size of a chunk for the client's end, in bytes: progress within a large message must be visible. */
const maxChunkSize = 64 * 1024

export interface StreamPairOptions {
  /** Bytes buffered for the client's end to read. The broker's end gets one batch at a time. */
  readonly readableHighWaterMark: number
  /** Bytes written at the client's end before `write` returns false. */
  readonly clientHighWaterMark: number
  /** Bytes waiting for the client's end before the broker's `write` returns false. */
  readonly brokerHighWaterMark: number
  /**
   * Inspects bytes to the broker, and returns how many may pass in one batch; the rest is inspected again. An error closes the client's end
   * without them.
   */
  readonly inspectIn?: (chunk: Buffer) => number | Error
  /** While it returns true, the client's bytes wait, until the client reads. */
  readonly pauseInput?: () => boolean
  /** Called with bytes written by the broker, but not with those of `send`, before they wait for the client. */
  readonly onWritten?: (chunk: Buffer) => void
  /** Called with bytes that pass to the client. */
  readonly onSent?: (chunk: Buffer) => void
  /** Called when the client has ended its side; the broker's end sees it when `release` is called. */
  readonly deferEnd?: (release: () => void) => void
  /** When bytes written by the broker pass. */
  readonly tick?: TickScheduler
  /** Joins the broker's chunks of one tick. */
  readonly concatCache?: ConcatCache
}

/**
 * Creates a connection inside the process: two streams, each of which reads what is written to the other.
 *
 * It behaves like a TCP connection: `end()` closes one direction; after `destroy()` the other end still reads all earlier bytes, and then
 * `'end'`. The client's bytes pass at once. The broker's bytes pass at the end of the event-loop tick, in one chunk, and so in one frame and
 * one system call.
 */
export function createStreamPair(options: StreamPairOptions): { client: PairEnd; broker: PairEnd } {
  const { onSent, tick = new TickScheduler() } = options
  const { concatCache = new ConcatCache(tick) } = options
  const client = new PairEnd({
    readableHighWaterMark: options.readableHighWaterMark,
    writableHighWaterMark: options.clientHighWaterMark,
    queueMark: 1,
    inspect: options.inspectIn,
    hold: options.pauseInput,
    deferEnd: options.deferEnd,
  })
  const broker = new PairEnd({
    readableHighWaterMark: 1,
    writableHighWaterMark: Math.min(options.brokerHighWaterMark, maxBytesPerTick),
    queueMark: options.brokerHighWaterMark,
    tick,
    concatCache,
    onWritten: options.onWritten,
    inspect: chunk => {
      const size = Math.min(chunk.length, maxChunkSize)
      onSent?.(size < chunk.length ? chunk.subarray(0, size) : chunk)
      return size
    },
  })
  client.join(broker)
  broker.join(client)
  return { client, broker }
}

type Done = (error?: Error | null) => void

interface PairEndOptions {
  readonly readableHighWaterMark: number
  readonly writableHighWaterMark: number
  /** Bytes that wait in the joined queue; further writes wait one by one, up to `writableHighWaterMark`. */
  readonly queueMark: number
  /** When written bytes pass. Default: at once. */
  readonly tick?: TickScheduler
  readonly concatCache?: ConcatCache
  readonly onWritten?: StreamPairOptions['onWritten'] | undefined
  readonly inspect?: StreamPairOptions['inspectIn'] | undefined
  readonly hold?: StreamPairOptions['pauseInput'] | undefined
  readonly deferEnd?: StreamPairOptions['deferEnd'] | undefined
}

export class PairEnd extends Duplex {
  /** Reason of the other end's close, if it gives one. */
  closeReason: GatewayError | undefined
  /** Aedes sets its client here, at the broker's end. */
  readonly client: Client | undefined
  endFor: ((reason: GatewayError) => boolean) | undefined
  clientSession: (() => ClientSession | undefined) | undefined
  /** Bytes written at this end that have passed. */
  deliveredBytes = 0
  readonly #options: PairEndOptions
  #other: PairEnd | undefined
  /** Written bytes that wait for room at the other end. */
  readonly #queue: ChunkQueue
  #passing = false
  #written: Done | undefined
  /** Bytes of that write, which both the stream and the queue count. */
  #counted = 0
  #ended: Done | undefined
  /** Whether this end is being destroyed: its writes complete at once, and still pass. */
  #closing = false
  #room = true
  #readingRest = false
  #endReceived = false

  constructor(options: PairEndOptions) {
    super(options)
    this.#options = options
    this.#queue = new ChunkQueue(options.concatCache?.join)
  }

  join(other: PairEnd): void {
    this.#other = other
  }

  /** Bytes written at this end that have not passed. */
  get waitingBytes(): number {
    return this.writableLength - this.#counted + this.#queue.bytes
  }

  /** Waiting bytes in the stream's own buffer, write by write, with an overhead of some 1 KiB each. */
  get unwrittenBytes(): number {
    return this.writableLength - this.#counted
  }

  /** Writes a complete packet other than PUBLISH, without the stream's own buffer if that is empty. */
  respond(packet: Buffer): void {
    if (this.send(packet)) this.#options.onWritten?.(packet)
    else if (!this.destroyed && !this.writableEnded) this.write(packet)
  }

  /**
   * Writes a complete PUBLISH without the stream's own buffer. Returns false if it would overtake bytes in that buffer, or does not fit: then
   * `write` it, and wait for `'drain'`.
   */
  send(packet: Buffer): boolean {
    if (this.writableLength > this.#counted || this.#queue.bytes >= this.#options.queueMark) return false
    if (this.destroyed || this.writableEnded) return false
    this.#queue.push(packet)
    this.#passSoon()
    return true
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#take([chunk], done)
  }

  override _writev(writes: { chunk: Buffer }[], done: Done): void {
    this.#take(join(writes.map(({ chunk }) => chunk)), done)
  }

  /**
   * As in Node 20, returns all buffered bytes without `size`. Node 26 returns one buffer at a time (nodejs/node#60441), and Aedes, which reads
   * once for each `'readable'`, would miss the others.
   */
  override read(size?: number): Buffer | null {
    const first: Buffer | null = super.read(size)
    const isAll = first === null || typeof size === 'number' || this.readableLength === 0 || this.readableFlowing
    return isAll ? first : this.#readRest(first)
  }

  #readRest(first: Buffer): Buffer {
    const chunks = [first]
    this.#readingRest = true
    while (this.readableLength > 0) chunks.push(super.read())
    this.#readingRest = false
    return Buffer.concat(chunks)
  }

  override _read(): void {
    // One call of `read` takes one batch from the other end; an empty chunk makes the stream read again.
    if (this.#readingRest) {
      this.push('')
      return
    }
    this.#room = true
    this.#other?.pass()
    // Bytes that waited until this end reads.
    this.pass()
  }

  override _final(done: Done): void {
    this.#ended = done
    this.pass()
  }

  /** As `Duplex#destroy`, but written bytes still pass. */
  override destroy(error?: Error): this {
    if (!this.destroyed) {
      this.#closing = true
      while (this.writableCorked > 0) this.uncork()
      // Completing the write makes the stream flush its buffer synchronously.
      this.#completeWrite()
    }
    return super.destroy(error)
  }

  override _destroy(error: Error | null, done: Done): void {
    // This end no longer reads: the other end's writes complete and are dropped.
    this.#other?.pass()
    this.pass()
    done(error)
  }

  #take(chunks: readonly Buffer[], done: Done): void {
    for (const chunk of chunks) {
      this.#options.onWritten?.(chunk)
      this.#queue.push(chunk)
      this.#counted += chunk.length
    }
    this.#written = done
    if (this.#closing || this.#queue.bytes < this.#options.queueMark) this.#completeWrite()
    this.#passSoon()
  }

  #passSoon(): void {
    const { tick } = this.#options
    if (!tick) this.pass()
    else if (!this.#passing) {
      this.#passing = true
      tick.add(this.#passAtTick)
    }
  }

  readonly #passAtTick = (): void => {
    this.#passing = false
    this.pass()
  }

  /** Passes waiting bytes for which there is room, and completes writes. */
  pass(): void {
    while (this.#mayPass()) {
      const chunk = this.#queue.shift()
      if (!chunk) break
      const size = this.#options.inspect?.(chunk) ?? chunk.length
      if (typeof size !== 'number') {
        this.#queue.clear()
        this.destroy(size)
        return
      }
      if (size < chunk.length) this.#queue.unshift(chunk.subarray(size))
      if (size === 0) break
      this.deliveredBytes += size
      this.#other?.receive(size < chunk.length ? chunk.subarray(0, size) : chunk)
    }
    if (this.#closing || this.#queue.bytes < this.#options.queueMark) this.#completeWrite()
    if (this.#queue.bytes > 0) return
    if (this.destroyed) this.#other?.receiveEnd()
    else this.#completeEnd()
  }

  #mayPass(): boolean {
    return this.#other?.hasRoom === true && !this.#options.hold?.()
  }

  #completeWrite(): void {
    const written = this.#written
    this.#written = undefined
    this.#counted = 0
    written?.()
  }

  #completeEnd(): void {
    const ended = this.#ended
    if (!ended) return
    this.#ended = undefined
    const release = (): void => this.#other?.receiveEnd()
    if (this.#options.deferEnd) this.#options.deferEnd(release)
    else release()
    ended()
  }

  get hasRoom(): boolean {
    return this.#room || this.destroyed
  }

  receive(chunk: Buffer): void {
    if (!this.destroyed && !this.#endReceived) this.#room = this.push(chunk)
  }

  receiveEnd(): void {
    if (this.#endReceived || this.destroyed) return
    this.#endReceived = true
    this.push(null)
  }
}
