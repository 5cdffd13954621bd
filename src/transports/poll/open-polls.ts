import { GatewayError } from '../../base/errors.js'
import type { TimeSlicer } from '../../base/time-slicer.js'

export interface OpenPoll {
  /** Answers it with what there is. */
  finish(): void
}

/** The waiting polls, at most one for each key. */
export class OpenPolls {
  readonly #all = new Set<OpenPoll>()
  readonly #byKey = new Map<string, OpenPoll>()
  #closed = false

  /** Answers the poll with this key, in favour of a new one. @throws {GatewayError} `shutting-down` */
  makeRoom(key?: string): void {
    if (this.#closed) throw new GatewayError('shutting-down')
    if (key !== undefined) this.#byKey.get(key)?.finish()
  }

  add(poll: OpenPoll, key?: string): void {
    this.#all.add(poll)
    if (key !== undefined) this.#byKey.set(key, poll)
  }

  delete(poll: OpenPoll, key?: string): void {
    this.#all.delete(poll)
    if (key !== undefined && this.#byKey.get(key) === poll) this.#byKey.delete(key)
  }

  /** Answers all with what there is: their clients poll again, and are admitted anew. */
  async finishAll(slicer: TimeSlicer): Promise<void> {
    await slicer.next('clients')
    for (const poll of [...this.#all]) {
      if (slicer.isOver) await slicer.next('clients')
      if (!this.#all.has(poll)) continue
      poll.finish()
      slicer.endedConnection()
    }
  }

  /** Answers all, and refuses new ones. */
  close(): void {
    this.#closed = true
    for (const poll of this.#all) poll.finish()
  }
}
