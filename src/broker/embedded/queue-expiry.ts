import { Deadlines } from '../../base/deadlines.js'
import type { TimeSlicer } from '../../base/time-slicer.js'
import type { SessionQueues } from './session-queues.js'
import type { Sessions } from './sessions.js'

/** Time between two readings of one queue, at least, in milliseconds. */
const minInterval = 60_000

export interface QueueExpiryOptions {
  readonly queues: Pick<SessionQueues, 'read'>
  readonly sessions: Pick<Sessions, 'isConnected' | 'release'>
  readonly slicer: TimeSlicer
  readonly onError: (error: unknown) => void
}

/**
 * Removes expired messages from the queues of disconnected sessions, so that they take no room from later messages. A returning client does
 * not get them in any case.
 */
export class QueueExpiry {
  readonly #options: QueueExpiryOptions
  /** When to read a session's queue. */
  readonly #due: Deadlines<string>

  constructor(options: QueueExpiryOptions) {
    this.#options = options
    const { slicer, onError } = options
    this.#due = new Deadlines({ onDue: id => this.#clean(id), onError, slicer, cause: 'sessions' })
  }

  /** Call when a message that expires is queued. @param expires milliseconds since 1970 */
  queued(clientId: string, expires: number): void {
    const time = Math.max(expires, Date.now() + minInterval)
    const planned = this.#due.get(clientId)
    if (planned === undefined || time < planned) this.#due.set(clientId, time)
  }

  /** Call when a session has ended. */
  ended(clientId: string): void {
    this.#due.delete(clientId)
  }

  /** Removes nothing more; resolves when the last removal is done. */
  stop(): Promise<void> {
    return this.#due.stop()
  }

  async #clean(clientId: string): Promise<void> {
    const { queues, sessions, slicer } = this.#options
    // Messages that a connected client does not acknowledge are read when it returns.
    if (sessions.isConnected(clientId)) return
    let next = Number.POSITIVE_INFINITY
    for await (const packet of queues.read(clientId, bytes => sessions.release(clientId, bytes))) {
      const { messageExpiry = next, messageId } = packet
      if (!messageId && messageExpiry < next) next = messageExpiry
      if (slicer.isOver) await slicer.next('sessions')
    }
    if (next < Number.POSITIVE_INFINITY) this.queued(clientId, next)
  }
}
