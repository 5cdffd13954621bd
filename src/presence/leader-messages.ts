import type { PresenceChange, PresenceMessages } from './presence-messages.js'

/** A change at its position in the changes of all gateways; several may have the same one. */
interface PendingChange {
  readonly position: number
  /** In milliseconds of any monotonic clock. */
  readonly time: number
  readonly change: PresenceChange
}

export interface LeaderMessagesOptions {
  readonly messages: Pick<PresenceMessages, 'publish' | 'drained'>
  /** Whether the lease with a token has not ended: a gateway that was stopped for a while does not know that yet. */
  readonly isHeld: (token: string) => boolean
  /** Sets a mark for all gateways, unless another one leads. @returns the mark's position */
  readonly mark: (token: string, mark: string) => Promise<number | undefined>
}

/** How long a change waits for a gateway that publishes it, in milliseconds. */
const maxWait = 10_000
/** Changes and characters of filters that wait. */
const [maxPending, maxPendingLength] = [100_000, 16 * 1024 ** 2]
/** Changes that are published before a mark. */
const batchSize = 1000
/** Interval of attempts to set a mark, and of checks of the lease, and how long the last one may take, in milliseconds. */
const [retryInterval, endTimeout] = [200, 1000]

/**
 * Publishes the changes of all gateways, if this gateway leads; otherwise keeps them until the mark of the gateway that does, so that this one can
 * continue there.
 */
export class LeaderMessages {
  readonly #options: LeaderMessagesOptions
  /** In order. */
  readonly #pending = new Set<PendingChange>()
  #length = 0
  #token: string | undefined
  /** The position up to which changes are published. */
  #published = 0
  /** The position up to which changes are known here. */
  #known = 0
  #publishing: Promise<void> = Promise.resolve()
  #wake: () => void = ignore

  constructor(options: LeaderMessagesOptions) {
    this.#options = options
  }

  add(change: PresenceChange, position: number): void {
    const time = performance.now()
    for (const oldest of this.#pending) {
      const isFull = this.#pending.size >= maxPending || this.#length > maxPendingLength
      if (!isFull && time - oldest.time < maxWait) break
      this.#drop(oldest)
    }
    this.#pending.add({ position, time, change })
    this.#length += change.filter.length
  }

  /** Call when all changes up to a position are added. */
  reached(position: number): void {
    this.#known = position
    this.#wake()
  }

  /** Call with each mark. */
  marked(mark: string): void {
    this.#published = Number(mark)
    for (const pending of this.#pending) {
      if (pending.position > this.#published) break
      this.#drop(pending)
    }
  }

  /**
   * @param token while this gateway leads
   * @returns resolves, without one, when what is published already is marked, or after some time
   */
  async lead(token: string | undefined): Promise<void> {
    this.#token = token
    this.#wake()
    if (token !== undefined) {
      this.#publishing = this.#publishAll(token)
      return
    }
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise<void>(resolve => {
      timer = setTimeout(resolve, endTimeout)
    })
    await Promise.race([this.#publishing, timeout])
    clearTimeout(timer)
  }

  close(): Promise<void> {
    return this.lead(undefined)
  }

  async #publishAll(token: string): Promise<void> {
    // All marks of the gateway that led before are in front of this one.
    const start = await this.#mark(token, this.#published)
    while (start !== undefined && this.#token === token) {
      if (!this.#options.isHeld(token)) {
        await retryDelay()
        continue
      }
      const position = this.#known < start ? undefined : this.#publishSome()
      if (position === undefined) {
        await this.#woken()
        continue
      }
      await this.#options.messages.drained()
      const [next] = this.#pending
      if (next?.position !== position) await this.#mark(token, position)
    }
  }

  /** @returns the position of the last one; `undefined` if there is none */
  #publishSome(): number | undefined {
    let position: number | undefined
    let count = 0
    for (const pending of this.#pending) {
      if (pending.position > this.#known || count >= batchSize) break
      position = pending.position
      count++
      this.#drop(pending)
      this.#options.messages.publish(pending.change)
    }
    return position
  }

  /** Tries at least once, until it succeeds or another gateway leads. @returns the mark's position */
  async #mark(token: string, position: number): Promise<number | undefined> {
    this.#published = position
    for (;;) {
      try {
        return await this.#options.mark(token, `${position}`)
      } catch {
        if (this.#token !== token) return undefined
        await retryDelay()
      }
    }
  }

  #woken(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = () => {
        this.#wake = ignore
        resolve()
      }
    })
  }

  #drop(pending: PendingChange): void {
    this.#pending.delete(pending)
    this.#length -= pending.change.filter.length
  }
}

function retryDelay(): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, retryInterval).unref())
}

function ignore(): void {}
