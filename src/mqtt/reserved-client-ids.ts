/** The MQTT client ids that the program itself connects with. Clients do not get to use them: the broker would end the program's connection. */
export class ReservedClientIds {
  readonly #ids = new Set<string>()

  add(...ids: readonly string[]): void {
    for (const id of ids) this.#ids.add(id)
  }

  has(id: string): boolean {
    return this.#ids.has(id)
  }
}
