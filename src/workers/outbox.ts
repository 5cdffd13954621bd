/** Sends what has changed in one message per iteration of the event loop, and only when the one before is written. */
export class Outbox {
  readonly #send: (sent: () => void) => boolean
  #state: 'idle' | 'scheduled' | 'sending' = 'idle'

  /** @param send sends some changes, and calls `sent`; returns whether there were any */
  constructor(send: (sent: () => void) => boolean) {
    this.#send = send
  }

  /** Something has changed. */
  changed(): void {
    if (this.#state !== 'idle') return
    this.#state = 'scheduled'
    setImmediate(() => {
      this.#state = 'sending'
      const hasSent = this.#send(() => {
        this.#state = 'idle'
        this.changed()
      })
      if (!hasSent) this.#state = 'idle'
    })
  }
}

/** Takes up to `max` entries from a set. */
export function takeSome(keys: Set<string>, max: number): string[] {
  const taken: string[] = []
  for (const key of keys) {
    if (taken.length === max) break
    keys.delete(key)
    taken.push(key)
  }
  return taken
}
