/** Topics with an alias, per connection and direction. */
export const maxTopicAliases = 32

/** Topic aliases from the broker to one client (MQTT 5 §3.3.2.3.4): the first topics that repeat get one, for as long as the connection lasts. */
export class TopicAliases {
  readonly #max: number
  readonly #aliases = new Map<string, number>()
  /** The last topic without an alias: one that repeats gets one. */
  #last = ''

  /** @param max the client's topic alias maximum [MQTT-3.1.2-26] */
  constructor(max: number) {
    this.#max = Math.min(max, maxTopicAliases)
  }

  /** The alias of a topic; `isKnown`: the client has it. `undefined`: it has none, and gets none now. */
  of(topic: string): { readonly number: number; readonly isKnown: boolean } | undefined {
    const known = this.#aliases.get(topic)
    if (known !== undefined) return { number: known, isKnown: true }
    if (this.#aliases.size >= this.#max) return undefined
    if (topic !== this.#last) {
      this.#last = topic
      return undefined
    }
    const number = this.#next()
    this.#aliases.set(topic, number)
    return { number, isKnown: false }
  }

  #next(): number {
    const used = new Set(this.#aliases.values())
    let number = 1
    while (used.has(number)) number++
    return number
  }

  /** Call when the client has not got its alias. */
  delete(topic: string): void {
    this.#aliases.delete(topic)
  }
}
