import { Duplex } from 'node:stream'
import type { GatewayError } from '../../base/errors.js'
import { ChunkQueue, ConcatCache, join } from './chunk-queue.js'
import { TickScheduler } from './tick-scheduler.js'

/** How much the broker's end takes in one turn of the event loop before `write` says false, at most, in bytes. */
const maxBytesPerTick = 64 * 1024

/** How much of what the broker wrote is handed to the client's end in one piece, in bytes: so it shows that it takes a large message. */
const maxChunkSize = 64 * 1024

/** One end of a pair, as its maker sees it. */
export interface StreamPairOptions {
  /** How much is buffered for the client's end to read, in bytes. The broker's end gets one batchSize at a time. */
  readonly readableHighWaterMark: number
  /** How much the client's end takes before `write` says false, in bytes. */
  readonly clientHighWaterMark: number
  /** How much waits for a client's end that does not read before the broker's `write` says false, in bytes. */
  readonly brokerHighWaterMark: number
  /**
   * Sees the bytes on their way to the broker, and says how many of them may go over in one batchSize; the rest comes
   * again. An error that it returns ends the client's end, and they stay out.
   */
  readonly inspectIn?: (chunk: Buffer) => number | Error
  /** While it says true, what the client wrote waits, until the client reads. */
  readonly pauseInput?: () => boolean
  /** Sees the bytes that the broker wrote, but not those that it sent, before they wait for the client to read. */
  readonly onWritten?: (chunk: Buffer) => void
  /** Sees the bytes on their way to the client. */
  readonly onSent?: (chunk: Buffer) => void
  /** Called when the client's end has ended its side; the broker's end learns of it when this calls back. */
  readonly deferEnd?: (release: () => void) => void
  /** When what the broker writes is handed over. */
  readonly tick?: TickScheduler
  /** Makes one chunk of what the broker wrote in one turn. */
  readonly concatCache?: ConcatCache
}

/**
 * Makes a connection inside the process: what is written at one end is read at the other.
 *
 * It behaves as a TCP connection on which nothing gets lost: `end()` closes one direction; after `destroy()` the other
 * end still reads all that was written before, and then its `'end'`. What the client writes passes on at once, without a
 * timer or a tick of its own. What the broker writes does so at the end of the turn of the event loop, in one chunk, and
 * so in one frame and one system call: bursts of 20 messages to 100 subscribers take 3.5 µs per delivery instead of 10.3.
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
  /** How much waits in joined form, in bytes; beyond it, writes wait one by one, up to `writableHighWaterMark`. */
  readonly queueMark: number
  /** When what is written is handed over; at once, without. */
  readonly tick?: TickScheduler
  readonly concatCache?: ConcatCache
  readonly onWritten?: StreamPairOptions['onWritten'] | undefined
  readonly inspect?: StreamPairOptions['inspectIn'] | undefined
  readonly hold?: StreamPairOptions['pauseInput'] | undefined
  readonly deferEnd?: StreamPairOptions['deferEnd'] | undefined
}

/** One end of a pair. */
export class PairEnd extends Duplex {
  /** Why the other end closes, where it says so. */
  closeReason: GatewayError | undefined
  /** What was written at this end and handed over, in bytes. */
  deliveredBytes = 0
  readonly #options: PairEndOptions
  #other: PairEnd | undefined
  /** What was written and waits for room at the other end. */
  readonly #queue: ChunkQueue
  #passing = false
  /** Completes the last write, when the queue is short enough for more. */
  #written: Done | undefined
  /** Bytes of that write, which the stream counts until then, and the queue does too. */
  #taken = 0
  /** Completes the end, when the queue is empty. */
  #ended: Done | undefined
  /** Set when this end is being destroyed: its writes are complete at once, and what waits is handed over all the same. */
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

  /** What was written at this end and not handed over, in bytes. */
  get waitingBytes(): number {
    return this.writableLength - this.#taken + this.#queue.bytes
  }

  /** Those of the waiting bytes that wait in the stream's own buffer, write by write. */
  get unwrittenBytes(): number {
    return this.writableLength - this.#taken
  }

  /** What waits in both directions and at both ends, in bytes. */
  get bufferedBytes(): number {
    const other = this.#other
    return this.readableLength + this.waitingBytes + (other ? other.readableLength + other.waitingBytes : 0)
  }

  /**
   * Takes `packet`, which is whole and known to be no answer, as `write` does but without the stream's own buffer and its
   * ticks. Returns false, and has not taken it, when it would come before what was written and is still in that buffer,
   * or when no more fits: `write` it, then, and wait for `'drain'`.
   */
  send(packet: Buffer): boolean {
    if (this.writableLength > this.#taken || this.#queue.bytes >= this.#options.queueMark) return false
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
   * As `Duplex#read` of Node 20: without `size`, all that is buffered. As of Node 26 that returns one buffer at a time
   * (nodejs/node#60441), and a reader that reads once for each `'readable'`, as Aedes does, waits for the others in vain.
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
    // One call of `read` takes one batchSize from the other end; an empty chunk makes the stream ask again in a tick.
    if (this.#readingRest) {
      this.push('')
      return
    }
    this.#room = true
    this.#other?.pass()
    // What was held until there is something read here.
    this.pass()
  }

  override _final(done: Done): void {
    this.#ended = done
    this.pass()
  }

  /** As `Duplex#destroy`, but what has been written is still handed over: a connection that is closed is not cut off. */
  override destroy(error?: Error): this {
    if (!this.destroyed) {
      this.#closing = true
      while (this.writableCorked > 0) this.uncork()
      // Completing the waiting write makes the stream write all that it has buffered, in this very call.
      this.#completeWrite()
    }
    return super.destroy(error)
  }

  override _destroy(error: Error | null, done: Done): void {
    // Nobody reads here any more: what the other end waits to write is settled by dropping it.
    this.#other?.pass()
    this.pass()
    done(error)
  }

  #take(chunks: readonly Buffer[], done: Done): void {
    for (const chunk of chunks) {
      this.#options.onWritten?.(chunk)
      this.#queue.push(chunk)
      this.#taken += chunk.length
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

  /** Hands over what waits, as far as there is room for it, and completes what waited for that. */
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
    this.#taken = 0
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
