import { GatewayError } from '../../base/errors.js'
import type { HeldBytes } from '../../http/body-budget.js'
import type { Worker, WorkQueue } from '../work-queue.js'
import type { SocketWriter } from './socket-writer.js'

/** Messages of one connection that are being done at the same time. */
const maxUnderWay = 64
/**
 * How many may wait before no more are read, if they are not larger than what may be under way; the rest of a read waits,
 * too.
 */
const maxWaiting = 16
/** Bytes that one of them takes beside its text, about. */
const messageBytes = 128
/** Bytes that are nobody's budget: the number of connections bounds them. */
const freeBytes = 8192

/** What the inbox of one connection needs. */
export interface InboxOptions<Message> {
  readonly writer: Pick<SocketWriter, 'isFull' | 'isPaused' | 'pause' | 'resume'>
  /** Of all connections of an endpoint. */
  readonly queue: WorkQueue
  /** The network of the client; those of one network share their turns. */
  readonly network: string
  /** Bounds what the messages of all connections hold until they are done. */
  readonly held: HeldBytes
  /** Called where there is no room for a message, which is forgotten. */
  readonly refuse: (ending: GatewayError) => void
  /** How large those that are being done may be together; one may be larger. */
  readonly maxSize: number
  /** Does what a message asks for. It must not throw, nor reject. */
  readonly take: (message: Message) => Promise<unknown> | undefined
  /** Whether the next one can be begun; left out for whenever there is room. */
  readonly isReady?: () => boolean
}

/** What has been read of one connection, and is done in its order: as far as there is room for it, and for its answers. */
export class SocketInbox<Message> implements Worker {
  readonly #options: InboxOptions<Message>
  readonly #waiting: { readonly message: Message; readonly size: number }[] = []
  #waitingSize = 0
  #underWay = 0
  #size = 0
  #isClosed = false

  readonly group: string

  constructor(options: InboxOptions<Message>) {
    this.#options = options
    this.group = options.network
  }

  /** @param size in whatever `maxSize` is in */
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

  /** Goes on where there may be room again. */
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
    return this.#underWay < maxUnderWay && this.#size <= maxSize && (isReady?.() ?? true)
  }

  work(): boolean {
    const next = this.#isNextReady ? this.#waiting.shift() : undefined
    if (!next) return false
    this.#waitingSize -= next.size
    const done = this.#options.take(next.message)
    if (done) {
      this.#underWay++
      this.#size += next.size
      void done.finally(() => {
        this.#underWay--
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

  /** Forgets what waits. */
  close(): void {
    this.#isClosed = true
    this.#waiting.length = 0
    this.#options.queue.delete(this)
    this.#options.held.resize(0)
  }

  /** @throws {GatewayError} as `HeldBytes.resize`; not where it is less than before */
  #hold(): void {
    if (this.#isClosed) return
    const count = this.#waiting.length + this.#underWay
    const bytes = this.#waitingSize + this.#size + messageBytes * count
    this.#options.held.resize(bytes > freeBytes ? bytes : 0)
  }
}
