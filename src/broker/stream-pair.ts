import { Duplex } from 'node:stream'

/** Chunks up to this size are joined with their neighbours; a larger one is handed on by reference, never copied. */
const smallChunk = 16 * 1024
/** The largest chunk that joining makes. */
const joinedChunk = 64 * 1024

/** One end of a pair, as its maker sees it. */
export interface StreamPairOptions {
  /** How much is buffered for each end to read, in bytes. */
  readonly readableHighWaterMark: number
  /** How much the client's end takes before `write` says false, in bytes. */
  readonly clientHighWaterMark: number
  /** How much the broker's end takes before `write` says false, in bytes. */
  readonly brokerHighWaterMark: number
  /** Sees the bytes on their way to the broker; an error that it returns ends the client's end, and they stay out. */
  readonly inspectIn?: (chunk: Buffer) => Error | undefined
  /** Sees the bytes on their way to the client. */
  readonly inspectOut?: (chunk: Buffer) => undefined
  /** Called when the client's end has ended its side; the broker's end learns of it when this calls back. */
  readonly holdEnd?: (release: () => void) => void
}

/**
 * Makes a connection inside the process: what is written at one end is read at the other.
 *
 * It behaves as a TCP connection on which nothing gets lost: `end()` closes one direction; after `destroy()` the other
 * end still reads all that was written before, and then its `'end'`. Writes pass on in the same turn of the event loop,
 * without a timer or a tick of their own, and the many small writes of a corked turn become one chunk.
 */
export function createStreamPair(options: StreamPairOptions): { client: Duplex; broker: Duplex } {
  const { readableHighWaterMark } = options
  const client = new PairEnd(
    { readableHighWaterMark, writableHighWaterMark: options.clientHighWaterMark },
    options.inspectIn,
    options.holdEnd,
  )
  const broker = new PairEnd(
    { readableHighWaterMark, writableHighWaterMark: options.brokerHighWaterMark },
    options.inspectOut,
  )
  client.join(broker)
  broker.join(client)
  return { client, broker }
}

type Done = (error?: Error | null) => void

class PairEnd extends Duplex {
  #other: PairEnd | undefined
  readonly #inspect: ((chunk: Buffer) => Error | undefined) | undefined
  readonly #holdEnd: (release: () => void) => void
  /** What goes on when there is room at the other end. */
  #waiting: (() => void) | undefined
  /** While this end is being destroyed, what it still holds goes over without regard to room. */
  #flushing = false
  #endReceived = false

  constructor(
    marks: { readableHighWaterMark: number; writableHighWaterMark: number },
    inspect: ((chunk: Buffer) => Error | undefined) | undefined,
    holdEnd: (release: () => void) => void = release => release(),
  ) {
    super(marks)
    this.#inspect = inspect
    this.#holdEnd = holdEnd
  }

  join(other: PairEnd): void {
    this.#other = other
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#pass([chunk], done)
  }

  override _writev(writes: { chunk: Buffer }[], done: Done): void {
    this.#pass(join(writes), done)
  }

  override _read(): void {
    this.#other?.roomMade()
  }

  override _final(done: Done): void {
    this.#holdEnd(() => this.#other?.receiveEnd())
    done()
  }

  /** As `Duplex#destroy`, but hands over first what has been written: a connection that is closed is not cut off. */
  override destroy(error?: Error): this {
    if (!this.destroyed && !this.writableFinished) this.#flush()
    return super.destroy(error)
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#other?.receiveEnd()
    // Nobody reads here any more: what the other end waits to write is settled by dropping it.
    this.#other?.roomMade()
    done(error)
  }

  #pass(chunks: readonly Buffer[], done: Done): void {
    const other = this.#other
    for (const [index, chunk] of chunks.entries()) {
      const error = this.#inspect?.(chunk)
      if (error) {
        done(error)
        return
      }
      const room = other?.receive(chunk) ?? true
      if (!room && !this.#flushing) {
        const rest = chunks.slice(index + 1)
        this.#waiting = rest.length === 0 ? done : () => this.#pass(rest, done)
        return
      }
    }
    done()
  }

  /** Whether there is room for more. */
  receive(chunk: Buffer): boolean {
    return this.destroyed || this.#endReceived || this.push(chunk)
  }

  receiveEnd(): void {
    if (this.#endReceived || this.destroyed) return
    this.#endReceived = true
    this.push(null)
  }

  roomMade(): void {
    const goOn = this.#waiting
    this.#waiting = undefined
    goOn?.()
  }

  /** Completing the waiting write makes the stream hand over all that it has buffered, in this very call. */
  #flush(): void {
    this.#flushing = true
    while (this.writableCorked > 0) this.uncork()
    this.roomMade()
  }
}

/** Joins runs of small chunks; big ones stay as they are. */
function join(writes: readonly { chunk: Buffer }[]): Buffer[] {
  const joined: Buffer[] = []
  let run: Buffer[] = []
  let length = 0
  const closeRun = (): void => {
    const [only] = run
    if (only) joined.push(run.length === 1 ? only : Buffer.concat(run, length))
    run = []
    length = 0
  }
  for (const { chunk } of writes) {
    if (chunk.length > smallChunk || length + chunk.length > joinedChunk) closeRun()
    if (chunk.length > smallChunk) {
      joined.push(chunk)
    } else if (chunk.length > 0) {
      run.push(chunk)
      length += chunk.length
    }
  }
  closeRun()
  return joined
}
