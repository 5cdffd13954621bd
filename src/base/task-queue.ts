import { FairQueue } from './fair-queue.js'
import { FairQuota } from './fair-quota.js'

/** The queue is full. */
export class QueueFullError extends Error {
  override readonly name = 'QueueFullError'
}

export interface TaskQueueOptions {
  /** Tasks that run at once. */
  readonly concurrent: number
  /** Waiting tasks, shared by the keys as in `FairQuota`. */
  readonly waiting: number
  /** Waiting tasks of one key. */
  readonly waitingPerKey: number
}

/**
 * Limits concurrent tasks. Waiting tasks start in rotation by key, such as an address, so that a thousand tasks of one key delay another
 * key by one of them.
 */
export class TaskQueue {
  readonly #options: TaskQueueOptions
  readonly #queue = new FairQueue<{ readonly key: string; readonly start: () => void }>()
  readonly #waiting: FairQuota
  #running = 0

  constructor(options: TaskQueueOptions) {
    this.#options = options
    this.#waiting = new FairQuota(options.waiting)
  }

  /** Number of waiting tasks. */
  get waiting(): number {
    return this.#queue.size
  }

  /**
   * Runs `task`, after waiting if too many run.
   *
   * @throws {QueueFullError}
   */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    if (this.#running < this.#options.concurrent) this.#running += 1
    else await this.#wait(key)
    try {
      return await task()
    } finally {
      this.#next()
    }
  }

  #wait(key: string): Promise<void> {
    const isFull = this.#waiting.of(key) >= this.#options.waitingPerKey
    if (isFull || this.#waiting.exceededBy(key, 1)) throw new QueueFullError()
    this.#waiting.take(key, 1)
    return new Promise(start => this.#queue.push(key, { key, start }))
  }

  /** Starts the next waiting task, if there is one. */
  #next(): void {
    const next = this.#queue.shift()
    if (!next) {
      this.#running -= 1
      return
    }
    this.#waiting.giveBack(next.key, 1)
    next.start()
  }
}
