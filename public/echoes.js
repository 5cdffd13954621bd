/**
 * Whether what this page publishes comes back to it: an acknowledgement of MQTT 3.1.1 says that the broker has a message, and
 * not that its rules let it through. Knows no DOM.
 */

/** How long a message may take to come back, in milliseconds. */
const WITHIN_MS = 2_000

export class Echoes {
  /** @type {Set<{ topic: string, payload: string, seen: () => void }>} */
  #awaited = new Set()

  /**
   * Call before the message is sent.
   *
   * @param {string} topic
   * @param {string} payload
   * @returns {Promise<boolean>} whether it has come back in time
   */
  await(topic, payload) {
    return new Promise(resolve => {
      const done = (/** @type {boolean} */ seen) => {
        clearTimeout(timer)
        this.#awaited.delete(entry)
        resolve(seen)
      }
      const timer = setTimeout(() => done(false), WITHIN_MS)
      const entry = { topic, payload, seen: () => done(true) }
      this.#awaited.add(entry)
    })
  }

  /**
   * Call with each message that comes.
   *
   * @param {string} topic
   * @param {Uint8Array} bytes
   */
  arrived(topic, bytes) {
    // Almost always there is nothing, and decoding costs.
    if (this.#awaited.size === 0) return
    for (const { topic: awaited, payload, seen } of this.#awaited) {
      if (awaited === topic && payload === new TextDecoder().decode(bytes)) {
        seen()
        return
      }
    }
  }
}
