import { FairQuota } from './fair-quota.js'

/** There is no place left to wait in. */
export class QueueFullError extends Error {
  override readonly name = 'NoTurnError'
}

export interface TaskQueueOptions {
  /** How many work at once. */
  readonly concurrent: number
  /** How many may wait in all; a new key finds room, however many others there are. */
  readonly waiting: number
  /** How many may wait of one key. */
  readonly waitingPerKey: number
}

/**
 * Bounds work that is done at once. Who has to wait comes in turn by key, such as an address: one who asks a thousand
 * times makes another one wait for one of them.
 */
export class TaskQueue {
  readonly #options: TaskQueueOptions
  /** Those who wait, by key, the key whose turn is next first. */
  readonly #queues = new Map<string, (() => void)[]>()
  readonly #waiting: FairQuota
  #working = 0

  constructor(options: TaskQueueOptions) {
    this.#options = options
    this.#waiting = new FairQuota(options.waiting)
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.total
  }

  /**
   * Does `work` when its turn comes.
   *
   * @throws {NoTurnError} when too many wait already
   */
  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    if (this.#working < this.#options.concurrent) this.#working += 1
    else await this.#wait(key)
    try {
      return await work()
    } finally {
      this.#next()
    }
  }

  #wait(key: string): Promise<void> {
    const queue = this.#queues.get(key) ?? []
    if (queue.length >= this.#options.waitingPerKey || this.#waiting.exceededBy(key, 1)) throw new QueueFullError()
    this.#waiting.take(key, 1)
    this.#queues.set(key, queue)
    return new Promise(resolve => queue.push(resolve))
  }

  /** Hands the place on, or gives it back. */
  #next(): void {
    for (const [key, queue] of this.#queues) {
      this.#queues.delete(key)
      const start = queue.shift()
      if (queue.length > 0) this.#queues.set(key, queue)
      if (start === undefined) continue
      this.#waiting.giveBack(key, 1)
      start()
      return
    }
    this.#working -= 1
  }
}
