/**
 * Whether the page receives its own messages: an acknowledgement of MQTT 3.1.1 means that the broker has a message, and not that
 * its rules permit it. Without DOM.
 */

/** Time for a message to arrive, in milliseconds. */
const WITHIN_MS = 2_000

export class PublishConfirmations {
  /** @type {Set<{ topic: string, payload: string, seen: () => void }>} */
  #pending = new Set()

  /**
   * Call before the message is sent.
   *
   * @param {string} topic
   * @param {string} payload
   * @returns {Promise<boolean>} whether it has arrived in time
   */
  await(topic, payload) {
    return new Promise(resolve => {
      const done = (/** @type {boolean} */ seen) => {
        clearTimeout(timer)
        this.#pending.delete(entry)
        resolve(seen)
      }
      const timer = setTimeout(() => done(false), WITHIN_MS)
      const entry = { topic, payload, seen: () => done(true) }
      this.#pending.add(entry)
    })
  }

  /**
   * Call with each message that arrives.
   *
   * @param {string} topic
   * @param {Uint8Array} bytes
   */
  arrived(topic, bytes) {
    // Decoding costs time, and usually nothing is pending.
    if (this.#pending.size === 0) return
    for (const { topic: awaited, payload, seen } of this.#pending) {
      if (awaited === topic && payload === new TextDecoder().decode(bytes)) {
        seen()
        return
      }
    }
  }
}
