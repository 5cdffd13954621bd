/**
 * The newest messages, up to a bound. Without DOM.
 *
 * @typedef {object} Message
 * @property {number} id
 * @property {Date} time time of arrival: MQTT messages have none
 * @property {string} topic
 * @property {import('./payload.js').Payload} payload
 * @property {0 | 1 | 2} [qos] left out if unknown
 * @property {boolean} retained
 * @property {boolean} duplicate
 * @property {number[]} hues colours of the subscriptions that it matched
 * @property {import('./properties.js').PropertyLine[]} [properties] of MQTT 5
 * @property {boolean} [note] a note of the page instead of a message
 * @property {string} [label] an additional label
 * @property {() => Node[]} [actions] controls in its row
 */

export const KEPT_MESSAGES = 500

export class MessageStore {
  /** @type {Message[]} oldest first */
  #kept = []
  #received = 0
  #dropped = 0

  /** Messages since the log was cleared. */
  get received() {
    return this.#received
  }

  /** Messages removed because of the bound. */
  get dropped() {
    return this.#dropped
  }

  /** @param {Omit<Message, 'id'>} message */
  add(message) {
    this.#received += 1
    this.#kept.push({ ...message, id: this.#received })
    // Trimmed in chunks: shifting 500 entries for each of 1000 messages a second would be wasted work.
    if (this.#kept.length >= KEPT_MESSAGES * 2) this.#kept = this.#kept.slice(-KEPT_MESSAGES)
    this.#dropped = Math.max(0, this.#received - KEPT_MESSAGES)
  }

  /**
   * @param {number} [id]
   * @returns {Message[]} the messages after this id, newest first
   */
  newest(id = 0) {
    const bound = Math.max(id, this.#received - KEPT_MESSAGES)
    const messages = []
    for (let index = this.#kept.length - 1; index >= 0; index--) {
      const message = this.#kept[index]
      if (message === undefined || message.id <= bound) break
      messages.push(message)
    }
    return messages
  }

  clear() {
    this.#kept = []
    this.#received = 0
    this.#dropped = 0
  }
}
