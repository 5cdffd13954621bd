import { Deadlines } from '../../base/deadlines.js'
import type { TimeSlicer } from '../../base/time-slicer.js'
import type { StorageBackend, StoredWill } from './storage-backend.js'

/** Time for a client to return after the start, if its will has no delay, in milliseconds. */
const returnTime = 10_000
/** Time for the first subscribers, in milliseconds. */
const minDelay = 1000

export interface EarlierWillsOptions {
  readonly storage: Pick<StorageBackend, 'wills' | 'will' | 'removeWill'>
  /** Whether a client has a session. */
  readonly hasSession: (clientId: string) => boolean
  /** Publishes a will; resolves when it is stored. */
  readonly publish: (will: StoredWill) => Promise<void>
  readonly slicer: TimeSlicer
  readonly onError: (error: unknown) => void
}

/** The will of a session that has ended. */
interface Ended {
  readonly will: StoredWill
  /** Whether it is the client's stored will. */
  isStored: boolean
}

/**
 * Wills of clients that were connected, or whose will was delayed, when an earlier run ended. Each is published once its delay is over, which
 * counts from the start, or its session ends, whichever is first (MQTT 5 §3.1.3.2.2); not if its client returns before.
 */
export class EarlierWills {
  readonly #options: EarlierWillsOptions
  readonly #due: Deadlines<string>
  /** Client ids whose will is being published. */
  readonly #publishing = new Set<string>()
  /** By client id. */
  readonly #ended = new Map<string, Ended>()
  #start = 0

  constructor(options: EarlierWillsOptions) {
    this.#options = options
    const { slicer, onError } = options
    this.#due = new Deadlines({ onDue: id => this.#publish(id), onError, slicer, cause: 'other task' })
  }

  /** Call once, when the sessions are restored. */
  async load(): Promise<void> {
    const { storage, hasSession } = this.#options
    this.#start = Date.now()
    for await (const { clientId, properties } of storage.wills()) {
      const delay = hasSession(clientId) ? (properties?.willDelayInterval ?? 0) * 1000 : 0
      this.#due.set(clientId, this.#start + (delay > 0 ? Math.max(delay, minDelay) : returnTime))
    }
  }

  /** Call when a client is back: its will is not published, unless its session has ended. @returns whether it had one */
  returned(clientId: string): boolean {
    const ended = this.#ended.get(clientId)
    if (ended) {
      ended.isStored = false
      return true
    }
    const hasWill = this.#due.get(clientId) !== undefined
    this.#due.delete(clientId)
    return this.#publishing.delete(clientId) || hasWill
  }

  /** Call when a session has ended; resolves when its client may store another will. */
  async sessionEnded(clientId: string): Promise<void> {
    if (this.#due.get(clientId) === undefined) return
    this.#due.delete(clientId)
    const will = await this.#options.storage.will(clientId)
    if (!will) return
    this.#ended.set(clientId, { will, isStored: true })
    this.#due.set(clientId, Math.max(Date.now(), this.#start + minDelay))
  }

  /** Publishes no more; the others are published by the next run. */
  stop(): Promise<void> {
    return this.#due.stop()
  }

  #publish(clientId: string): Promise<void> {
    const ended = this.#ended.get(clientId)
    return ended ? this.#publishEnded(clientId, ended) : this.#publishStored(clientId)
  }

  async #publishEnded(clientId: string, ended: Ended): Promise<void> {
    await this.#options.publish(ended.will)
    this.#ended.delete(clientId)
    if (ended.isStored) await this.#options.storage.removeWill(clientId)
  }

  async #publishStored(clientId: string): Promise<void> {
    const { storage, publish } = this.#options
    this.#publishing.add(clientId)
    const will = await storage.will(clientId)
    if (!will || !this.#publishing.has(clientId)) return
    await publish(will)
    // The client may have another one by now.
    if (this.#publishing.delete(clientId)) await storage.removeWill(clientId)
  }
}
