/** The program's own MQTT client ids. Clients must not use them, as the broker would close the program's connection. */
export class ReservedClientIds {
  readonly #ids = new Set<string>()

  add(...ids: readonly string[]): void {
    for (const id of ids) this.#ids.add(id)
  }

  has(id: string): boolean {
    return this.#ids.has(id)
  }
}
