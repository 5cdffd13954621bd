/** Table of listeners (`/v1/presence`): all filters with their number of listeners, or the listeners of one topic. */

import { count, duration } from './dashboard-numbers.js'
import { Refusal, request } from './dashboard-stream.js'
import { renderHead, renderRows } from './dashboard-table.js'
import { byId } from './dom.js'

const REFRESH_MS = 5_000
/** Rows of one response. */
const LIMIT = 100

/**
 * @typedef {object} Listener
 * @property {string} device
 * @property {string} [user]
 * @property {string} transport
 * @property {string[]} topics
 * @property {number} connections
 * @property {string} since
 */

export class ListenersView {
  #authorization
  #head = byId('listeners-head', HTMLElement)
  #body = byId('listeners', HTMLElement)
  #count = byId('listeners-count', HTMLElement)
  #empty = byId('listeners-empty', HTMLElement)
  #objection = byId('listeners-objection', HTMLElement)
  #topic = byId('listeners-topic', HTMLInputElement)
  #wanted = ''
  #isOn = false
  #turn = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer

  /** @param {() => string | undefined} authorization */
  constructor(authorization) {
    this.#authorization = authorization
    byId('listeners-form', HTMLFormElement).addEventListener('submit', event => {
      event.preventDefault()
      this.#show(this.#topic.value)
    })
    // The cross of a search field empties it.
    this.#topic.addEventListener('search', () => this.#show(this.#topic.value))
  }

  start() {
    if (this.#isOn) return
    this.#isOn = true
    this.#load()
  }

  stop() {
    this.#isOn = false
    clearTimeout(this.#timer)
  }

  /** @param {string} topic empty for all filters */
  #show(topic) {
    this.#wanted = topic
    this.#topic.value = topic
    this.#load()
  }

  async #load() {
    clearTimeout(this.#timer)
    if (!this.#isOn) return
    const turn = ++this.#turn
    if (!document.hidden) await this.#request(turn)
    if (turn === this.#turn && this.#isOn) this.#timer = setTimeout(() => this.#load(), REFRESH_MS)
  }

  /** @param {number} turn */
  async #request(turn) {
    const query = new URLSearchParams({ limit: String(LIMIT) })
    if (this.#wanted !== '') query.set('topic', this.#wanted)
    try {
      const response = await request(`/v1/presence?${query}`, { authorization: this.#authorization() })
      const found = await response.json()
      if (turn !== this.#turn) return
      this.#objection.textContent = ''
      if (this.#wanted === '') this.#drawFilters(found)
      else this.#drawListeners(found)
    } catch (error) {
      if (turn !== this.#turn) return
      renderRows(this.#body, [])
      this.#count.textContent = ''
      this.#empty.hidden = true
      this.#objection.textContent = sentenceOf(error, this.#wanted)
    }
  }

  /** @param {{ count: number, topics: Record<string, number> }} found */
  #drawFilters({ count: all, topics }) {
    renderHead(this.#head, [{ text: 'Topic filter' }, { text: 'Listeners', isNumber: true }])
    const rows = Object.entries(topics).map(([filter, listeners]) => ({
      key: filter,
      cells: [
        { text: filter, className: 'mono topic-name', isCode: true, onClick: () => this.#show(filter) },
        { text: count(listeners), className: 'number' },
      ],
    }))
    renderRows(this.#body, rows)
    this.#drawCount(all, rows.length, 'in all')
  }

  /** @param {{ count: number, listeners: Listener[] }} found */
  #drawListeners({ count: all, listeners }) {
    renderHead(this.#head, [
      { text: 'Device' },
      { text: 'User' },
      { text: 'Transport' },
      { text: 'Filters' },
      { text: 'Since', isNumber: true },
    ])
    const rows = listeners.map(({ device, user = '', transport, topics, connections, since }) => ({
      key: `${device} ${user} ${transport}`,
      className: connections === 0 ? 'dim' : '',
      cells: [
        { text: device, className: 'mono topic-name', isCode: true },
        { text: user, isCode: true },
        { text: connections === 0 ? `${transport}, away` : transport },
        { text: topics.join(' '), className: 'mono excerpt', isCode: true },
        { text: duration((Date.now() - Date.parse(since)) / 1000), className: 'number' },
      ],
    }))
    renderRows(this.#body, rows)
    this.#drawCount(all, rows.length, 'of this topic')
  }

  /**
   * @param {number} all
   * @param {number} shown
   * @param {string} where
   */
  #drawCount(all, shown, where) {
    this.#empty.hidden = shown > 0
    this.#count.textContent = `${count(all)} ${where}${shown === LIMIT ? `, ${LIMIT} rows shown` : ''}`
  }
}

/**
 * @param {unknown} error
 * @param {string} topic
 */
function sentenceOf(error, topic) {
  if (!(error instanceof Refusal)) return 'The listeners cannot be loaded at the moment.'
  if (error.status === 403 && topic === '') return 'You may not read all topics: enter one that you may read.'
  return error.message
}
