/** Milliseconds between two messages: one for each iteration of the event loop took a fifth of the processor time of a new connection. */
const interval = 5

/** Sends what has changed: the first change at once, further ones together a little later, and only when the message before is written. */
export class Outbox {
  readonly #send: (sent: () => void) => boolean
  #isWaiting = false

  /** @param send sends some changes, and calls `sent`; returns whether there were any */
  constructor(send: (sent: () => void) => boolean) {
    this.#send = send
  }

  /** Something has changed. */
  changed(): void {
    if (this.#isWaiting) return
    this.#isWaiting = true
    setImmediate(this.#run)
  }

  readonly #run = (): void => {
    this.#isWaiting = this.#send(() => setTimeout(this.#run, interval))
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
