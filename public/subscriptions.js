/**
 * What this page wants to hear, what the broker granted of it, and which of it a message belongs to. Knows no DOM.
 *
 * @typedef {0 | 1 | 2} Qos
 *
 * @typedef {object} Subscription
 * @property {string} filter
 * @property {Qos} qos the one asked for
 * @property {'waiting' | 'asked' | 'granted' | 'refused' | 'leaving'} state `waiting`: for a connection
 * @property {number} [granted] the granted QoS
 * @property {string} [objection] why it was refused
 * @property {number} hue index of its colour
 * @property {number} messages how many matched
 */

import { matches } from './topic-filter.js'

/** As many as the style sheet has. */
const HUES = 8

export class Subscriptions {
  /** @type {Map<string, Subscription>} */
  #byFilter = new Map()
  #connection
  #onChange

  /**
   * @param {import('./connection.js').Connection} connection
   * @param {(list: Subscription[]) => void} onChange
   */
  constructor(connection, onChange) {
    this.#connection = connection
    this.#onChange = onChange
  }

  get list() {
    return [...this.#byFilter.values()]
  }

  /**
   * Subscribes, or asks again with another QoS.
   *
   * @param {string} filter valid
   * @param {Qos} qos
   */
  add(filter, qos) {
    const known = this.#byFilter.get(filter)
    /** @type {Subscription} */
    const subscription = {
      filter,
      qos,
      state: 'waiting',
      hue: known?.hue ?? this.#freeHue(),
      messages: known?.messages ?? 0,
    }
    this.#byFilter.set(filter, subscription)
    this.#ask(subscription)
  }

  /** @param {string} filter */
  async remove(filter) {
    const subscription = this.#byFilter.get(filter)
    if (subscription === undefined) return
    if (this.#connection.connected && (subscription.state === 'granted' || subscription.state === 'asked')) {
      this.#update(subscription, { state: 'leaving' })
      await this.#connection.unsubscribe(filter)
    }
    // Somebody may have subscribed to it again meanwhile: that is another entry under the same filter.
    if (this.#byFilter.get(filter) !== subscription) return
    this.#byFilter.delete(filter)
    this.#changed()
  }

  /** After a connection came about: clean sessions start with nothing. */
  restore() {
    for (const subscription of this.list) this.#ask(subscription)
  }

  /** After a connection was lost. */
  suspend() {
    for (const subscription of this.list) {
      if (subscription.state === 'leaving') this.#byFilter.delete(subscription.filter)
      else if (subscription.state !== 'refused') subscription.state = 'waiting'
    }
    this.#changed()
  }

  /**
   * Counts a message.
   *
   * @param {string} topic
   * @returns {number[]} the colours of the subscriptions that it matches
   */
  count(topic) {
    const hues = []
    for (const subscription of this.#byFilter.values()) {
      if (subscription.state === 'refused' || !matches(subscription.filter, topic)) continue
      subscription.messages += 1
      hues.push(subscription.hue)
    }
    this.#changed()
    return hues
  }

  /**
   * Whether what is published on a topic comes to this page.
   *
   * @param {string} topic
   */
  covers(topic) {
    return this.list.some(({ state, filter }) => state === 'granted' && matches(filter, topic))
  }

  /** @param {Subscription} subscription */
  async #ask(subscription) {
    if (!this.#connection.connected) {
      this.#update(subscription, { state: 'waiting' })
      return
    }
    this.#update(subscription, { state: 'asked' })
    try {
      const granted = await this.#connection.subscribe(subscription.filter, subscription.qos)
      if (subscription.state === 'asked') this.#update(subscription, { state: 'granted', granted })
    } catch (error) {
      const objection = error instanceof Error ? error.message : String(error)
      this.#update(subscription, { state: 'refused', objection })
    }
  }

  /**
   * @param {Subscription} subscription
   * @param {Partial<Subscription>} change
   */
  #update(subscription, change) {
    Object.assign(subscription, change)
    this.#changed()
  }

  #changed() {
    this.#onChange(this.list)
  }

  #freeHue() {
    const taken = new Set(this.list.map(({ hue }) => hue))
    for (let hue = 0; hue < HUES; hue++) if (!taken.has(hue)) return hue
    return this.#byFilter.size % HUES
  }
}
