/** The receipts: a block for each event, newest first, with a line for each device. */

import { byId, element, foreign, oncePerFrame } from './dom.js'

/**
 * @typedef {'received' | 'processed' | 'failed' | 'missed'} Outcome
 * @typedef {{ outcome: Outcome, time: Date, detail: string }} Answer
 * @typedef {{ order: number, topic: string, text: string, answers: Map<string, Answer> }} Acknowledged
 */

/** Maximum number of events. */
const KEPT_EVENTS = 100

/** Events whose payload is known: in a burst, receipts arrive long after their events. */
const KEPT_TEXTS = 5_000

/** Maximum number of devices of an event, the latest ones. */
const SHOWN_ANSWERS = 50

/** Lines per frame. */
const LINES_PER_FRAME = 40

const list = byId('acks', HTMLOListElement)
const empty = byId('acks-empty', HTMLElement)
const count = byId('acks-count', HTMLElement)

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })

/** @type {Record<Outcome, string>} */
const words = { received: 'received', processed: '✓ processed', failed: '✗ failed', missed: 'no receipt in time' }

export class ReceiptsView {
  /** Excerpts and arrival order of events. @type {Map<string, { order: number, text: string }>} */
  #texts = new Map()
  #known = 0
  /** Events with receipts. @type {Map<string, Acknowledged>} */
  #events = new Map()
  /** Displayed blocks. @type {Map<string, HTMLElement>} */
  #blocks = new Map()
  /** Events whose block is outdated. @type {Set<string>} */
  #changed = new Set()
  #receipts = 0
  #draw = oncePerFrame(() => this.#render())

  /**
   * Stores the payload of an event, for its receipts.
   *
   * @param {string} id
   * @param {string} text
   */
  know(id, text) {
    const order = ++this.#known
    this.#texts.set(id, { order, text })
    keepNewest(this.#texts, KEPT_TEXTS)
    const event = this.#events.get(id)
    if (event === undefined) return
    event.text = text
    this.#changed.add(id)
    this.#draw()
  }

  /**
   * @param {string} id
   * @param {string} topic
   * @param {string} device
   * @param {Answer} answer
   */
  answer(id, topic, device, answer) {
    const event = this.#events.get(id) ?? this.#newEvent(id, topic)
    event.answers.set(device, answer)
    this.#changed.add(id)
    this.#receipts += 1
    this.#draw()
  }

  /**
   * @param {string} id
   * @param {string} topic
   */
  #newEvent(id, topic) {
    const { order, text } = this.#texts.get(id) ?? { order: ++this.#known, text: '' }
    /** @type {Acknowledged} */
    const event = { order, topic, text, answers: new Map() }
    this.#events.set(id, event)
    for (const gone of keepNewest(this.#events, KEPT_EVENTS)) this.#changed.add(gone)
    return event
  }

  #render() {
    count.textContent = this.#receipts === 0 ? 'none yet' : `${this.#receipts.toLocaleString('en')} so far`
    let lines = 0
    for (const id of this.#changed) {
      if (lines >= LINES_PER_FRAME) {
        this.#draw()
        break
      }
      this.#changed.delete(id)
      lines += this.#renderBlock(id)
    }
    empty.hidden = this.#blocks.size > 0
  }

  /**
   * @param {string} id
   * @returns {number} number of drawn lines
   */
  #renderBlock(id) {
    const event = this.#events.get(id)
    const before = this.#blocks.get(id)
    if (event === undefined) {
      before?.remove()
      this.#blocks.delete(id)
      return 0
    }
    const made = block(id, event)
    this.#blocks.set(id, made)
    if (before) before.replaceWith(made)
    else list.insertBefore(made, this.#nextOlder(event.order))
    return 1 + Math.min(event.answers.size, SHOWN_ANSWERS)
  }

  /**
   * The block to insert another one before; the newest event is first.
   *
   * @param {number} order
   */
  #nextOlder(order) {
    for (const made of list.children) {
      if (made instanceof HTMLElement && Number(made.dataset['order']) < order) return made
    }
    return null
  }
}

/**
 * @template V
 * @param {Map<string, V>} map
 * @param {number} bound
 * @returns {string[]} the removed keys
 */
function keepNewest(map, bound) {
  const gone = []
  for (const key of map.keys()) {
    if (map.size <= bound) break
    map.delete(key)
    gone.push(key)
  }
  return gone
}

/**
 * @param {string} id
 * @param {Acknowledged} event
 */
function block(id, { order, topic, text, answers }) {
  const head = element('p', 'ack-event', foreign('span', 'topic mono', topic), foreign('span', 'ack-text mono', text))
  head.title = id
  const lines = [...answers].slice(-SHOWN_ANSWERS).map(line)
  const more = answers.size - lines.length
  if (more > 0) lines.push(element('li', 'ack-line', `… and ${more.toLocaleString('en')} more`))
  const made = element('li', 'ack', head, element('ul', 'ack-devices', ...lines))
  made.dataset['order'] = String(order)
  return made
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
