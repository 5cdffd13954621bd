/** Events whose publisher is known. */
const maxKnown = 10_000

/** The publishers of the newest events, by event id: PERE shows them, and MQTT does not carry them. In memory only. */
export class Publishers {
  readonly #devices = new Map<string, string>()

  note(id: string, device: string): void {
    this.#devices.set(id, device)
    if (this.#devices.size <= maxKnown) return
    const [oldest] = this.#devices.keys()
    if (oldest !== undefined) this.#devices.delete(oldest)
  }

  of(id: string): string | undefined {
    return this.#devices.get(id)
  }
}
