/** As many are known. */
const mostKnown = 10_000

/**
 * Who published the newest events, by their ids: MQTT does not carry that, and PERE shows it. In memory only, as nothing
 * but what a person sees depends on it.
 */
export class Publishers {
  readonly #devices = new Map<string, string>()

  note(id: string, device: string): void {
    this.#devices.set(id, device)
    if (this.#devices.size <= mostKnown) return
    const [oldest] = this.#devices.keys()
    if (oldest !== undefined) this.#devices.delete(oldest)
  }

  of(id: string): string | undefined {
    return this.#devices.get(id)
  }
}
