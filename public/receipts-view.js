/** Who acknowledged what: a block for each event, newest first, and in it a line for each device. */

import { byId, element, foreign, oncePerFrame } from './dom.js'

/**
 * @typedef {'received' | 'processed' | 'failed' | 'missed'} Outcome
 * @typedef {{ outcome: Outcome, time: Date, detail: string }} Answer
 * @typedef {{ topic: string, text: string, answers: Map<string, Answer> }} Acknowledged
 */

/** So many events are kept in sight. */
const KEPT_EVENTS = 100

const list = byId('acks', HTMLOListElement)
const empty = byId('acks-empty', HTMLElement)
const count = byId('acks-count', HTMLElement)

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })

/** @type {Record<Outcome, string>} */
const words = { received: 'received', processed: '✓ processed', failed: '✗ failed', missed: 'no receipt in time' }

export class ReceiptsView {
  /** @type {Map<string, Acknowledged>} oldest first */
  #events = new Map()
  #receipts = 0
  #draw = oncePerFrame(() => this.#render())

  /**
   * What an event is called when somebody acknowledges it.
   *
   * @param {string} id
   * @param {string} topic
   * @param {string} text
   */
  know(id, topic, text) {
    const known = this.#events.get(id)
    if (known === undefined) this.#events.set(id, { topic, text, answers: new Map() })
    else known.text = text
    for (const oldest of this.#events.keys()) {
      if (this.#events.size <= KEPT_EVENTS) break
      this.#events.delete(oldest)
    }
    this.#draw()
  }

  /**
   * @param {string} id
   * @param {string} topic
   * @param {string} device
   * @param {Answer} answer
   */
  answer(id, topic, device, answer) {
    if (!this.#events.has(id)) this.know(id, topic, '')
    this.#events.get(id)?.answers.set(device, answer)
    this.#receipts += 1
    this.#draw()
  }

  #render() {
    const answered = [...this.#events].filter(([, { answers }]) => answers.size > 0).reverse()
    empty.hidden = answered.length > 0
    count.textContent = this.#receipts === 0 ? 'none yet' : `${this.#receipts.toLocaleString('en')} so far`
    list.replaceChildren(...answered.map(([id, event]) => block(id, event)))
  }
}

/**
 * @param {string} id
 * @param {Acknowledged} event
 */
function block(id, { topic, text, answers }) {
  const head = element('p', 'ack-event', foreign('span', 'topic mono', topic), foreign('span', 'ack-text mono', text))
  head.title = id
  return element('li', 'ack', head, element('ul', 'ack-devices', ...[...answers].map(line)))
}

/** @param {[string, Answer]} entry */
function line([device, { outcome, time, detail }]) {
  const when = element('time', 'ack-when mono', clock.format(time))
  when.dateTime = time.toISOString()
  const status = element('span', `ack-status ack-${outcome}`, words[outcome])
  const facts = [when, foreign('span', 'ack-device mono', device), status]
  if (detail !== '') facts.push(foreign('span', 'ack-detail', detail))
  return element('li', 'ack-line', ...facts)
}
