import { GatewayError } from '../../base/errors.js'
import type { HeldBytes } from '../../http/body-budget.js'
import type { Worker, WorkQueue } from '../work-queue.js'
import type { SocketWriter } from './socket-writer.js'

/** Messages of one connection that are handled at the same time. */
const maxInProgress = 64
/**
 * Queued messages before reading pauses, if they are no larger than `maxSize`; the rest of a read is queued, too.
 */
const maxWaiting = 16
/** Approximate bytes of a queued message without its text. */
const messageBytes = 128
/** Bytes that do not count in the budget: the number of connections bounds them. */
const freeBytes = 8192

export interface InboxOptions<Message> {
  readonly writer: Pick<SocketWriter, 'isFull' | 'isPaused' | 'pause' | 'resume'>
  /** Shared by all connections of an endpoint. */
  readonly queue: WorkQueue
  /** The network of the client, as the group in the queue. */
  readonly network: string
  /** The budget of queued messages of all connections. */
  readonly held: HeldBytes
  /** Called when the budget is exhausted; the message is dropped. */
  readonly refuse: (error: GatewayError) => void
  /** Size of the messages that are handled at the same time; a single one may be larger. */
  readonly maxSize: number
  /** Handles a message. It must neither throw nor reject. */
  readonly take: (message: Message) => Promise<unknown> | undefined
  /** Whether the next message may be handled; left out for always. */
  readonly isReady?: () => boolean
}

/** Handles the messages of one connection in order, with backpressure: as long as there is room for them and for their responses. */
export class SocketInbox<Message> implements Worker {
  readonly #options: InboxOptions<Message>
  readonly #waiting: { readonly message: Message; readonly size: number }[] = []
  #waitingSize = 0
  #inProgress = 0
  #size = 0
  #isClosed = false

  readonly group: string

  constructor(options: InboxOptions<Message>) {
    this.#options = options
    this.group = options.network
  }

  /** @param size in the unit of `maxSize` */
  push(message: Message, size: number): void {
    if (this.#isClosed) return
    this.#waiting.push({ message, size })
    this.#waitingSize += size
    try {
      this.#hold()
    } catch (error) {
      return this.#options.refuse(GatewayError.from(error))
    }
    this.goOn()
  }

  /** Call when there may be room again. */
  goOn(): void {
    if (this.#isClosed) return
    const { writer, queue, maxSize } = this.#options
    if (this.#isNextReady) queue.add(this)
    const isMuch = this.#waiting.length > maxWaiting || this.#waitingSize > maxSize
    if (isMuch && !writer.isPaused) writer.pause()
    if (this.#waiting.length === 0 && writer.isPaused) writer.resume()
  }

  get #isNextReady(): boolean {
    const { writer, maxSize, isReady } = this.#options
    if (this.#waiting.length === 0 || writer.isFull) return false
    return this.#inProgress < maxInProgress && this.#size <= maxSize && (isReady?.() ?? true)
  }

  work(): boolean {
    const next = this.#isNextReady ? this.#waiting.shift() : undefined
    if (!next) return false
    this.#waitingSize -= next.size
    const done = this.#options.take(next.message)
    if (done) {
      this.#inProgress++
      this.#size += next.size
      void done.finally(() => {
        this.#inProgress--
        this.#size -= next.size
        this.#hold()
        this.goOn()
      })
    } else {
      this.#hold()
    }
    this.goOn()
    return this.#isNextReady
  }

  close(): void {
    this.#isClosed = true
    this.#waiting.length = 0
    this.#options.queue.delete(this)
    this.#options.held.resize(0)
  }

  /** @throws {GatewayError} as `HeldBytes.resize`; not if it is less than before */
  #hold(): void {
    if (this.#isClosed) return
    const count = this.#waiting.length + this.#inProgress
    const bytes = this.#waitingSize + this.#size + messageBytes * count
    this.#options.held.resize(bytes > freeBytes ? bytes : 0)
  }
}
