/**
 * The subscriptions of this page, their granted QoS, and the subscriptions that match a message. Without DOM.
 *
 * @typedef {0 | 1 | 2} Qos
 *
 * @typedef {object} Subscription
 * @property {string} filter
 * @property {Qos} qos the requested one
 * @property {'waiting' | 'asked' | 'granted' | 'refused' | 'leaving'} state `waiting`: for a connection
 * @property {number} [granted] the granted QoS
 * @property {string} [objection] reason of the refusal
 * @property {number} hue index of its colour
 * @property {number} messages number of matching messages
 */

import { matches } from './topic-filter.js'

/** Number of colours in the style sheet. */
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
   * Subscribes, or subscribes again with another QoS.
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
    // The user may have subscribed again meanwhile: that is another entry with the same filter.
    if (this.#byFilter.get(filter) !== subscription) return
    this.#byFilter.delete(filter)
    this.#changed()
  }

  /** Subscribes again after a connect: a clean session has no subscriptions. */
  restore() {
    for (const subscription of this.list) this.#ask(subscription)
  }

  /** Marks subscriptions as waiting after the loss of the connection. */
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
   * Whether this page receives messages on a topic.
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
