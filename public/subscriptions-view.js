/** The panel of subscriptions: the form, buttons with common filters, and the list. */

import { button, byId, chosenQos, element, foreign, showObjection } from './dom.js'
import { objectionToFilter } from './topic-filter.js'

/** @typedef {import('./subscriptions.js').Subscription} Subscription */

const form = byId('subscribe-form', HTMLFormElement)
const input = byId('filter', HTMLInputElement)
const objectionPlace = byId('filter-objection', HTMLElement)
const list = byId('subscriptions', HTMLUListElement)
const chips = [...byId('chips', HTMLElement).querySelectorAll('button')]

/** @type {Map<string, { row: HTMLLIElement, status: HTMLElement, count: HTMLElement }>} rows stay, so that focus stays */
const rows = new Map()

/** @param {{ onSubscribe: (filter: string, qos: 0 | 1 | 2) => void }} actions */
export function wireSubscriptions({ onSubscribe }) {
  form.addEventListener('submit', event => {
    event.preventDefault()
    const objection = objectionToFilter(input.value)
    showObjection(input, objectionPlace, objection)
    if (objection === undefined) onSubscribe(input.value, chosenQos(form, 'subscribe-qos'))
    else input.focus()
  })
  input.addEventListener('input', () => {
    // Removes an objection at once; shows a new one only when the form is submitted.
    if (objectionToFilter(input.value) === undefined) showObjection(input, objectionPlace, undefined)
  })
  for (const chip of chips) {
    chip.addEventListener('click', () => {
      input.value = chip.value
      showObjection(input, objectionPlace, undefined)
      onSubscribe(chip.value, chosenQos(form, 'subscribe-qos'))
    })
  }
}

/**
 * @param {Subscription[]} subscriptions
 * @param {(filter: string) => void} onRemove
 */
export function renderSubscriptions(subscriptions, onRemove) {
  const filters = new Set(subscriptions.map(({ filter }) => filter))
  for (const [filter, { row }] of rows) {
    if (filters.has(filter)) continue
    if (row.contains(document.activeElement)) input.focus()
    row.remove()
    rows.delete(filter)
  }
  for (const subscription of subscriptions) renderRow(subscription, onRemove)
  for (const chip of chips) chip.classList.toggle('taken', filters.has(chip.value))
}

/**
 * @param {Subscription} subscription
 * @param {(filter: string) => void} onRemove
 */
function renderRow(subscription, onRemove) {
  const { filter, hue, messages, state } = subscription
  const known = rows.get(filter) ?? createRow(filter, hue, onRemove)
  known.row.dataset['state'] = state
  setText(known.status, statusOf(subscription))
  setText(known.count, messages === 1 ? '1 message' : `${messages.toLocaleString('en')} messages`)
}

/**
 * @param {string} filter
 * @param {number} hue
 * @param {(filter: string) => void} onRemove
 */
function createRow(filter, hue, onRemove) {
  const status = element('span', 'subscription-status')
  const count = element('span', 'subscription-count')
  const remove = button('×', 'remove', () => onRemove(filter))
  remove.setAttribute('aria-label', `Unsubscribe from ${filter}`)
  remove.title = 'Unsubscribe'
  const row = element(
    'li',
    `subscription hue-${hue}`,
    element('span', 'swatch'),
    foreign('span', 'subscription-filter mono', filter),
    element('span', 'subscription-facts', status, ' · ', count),
    remove,
  )
  list.append(row)
  const created = { row, status, count }
  rows.set(filter, created)
  return created
}

/** @param {Subscription} subscription */
function statusOf({ state, qos, granted, objection }) {
  switch (state) {
    case 'waiting':
      return `QoS ${qos}, when connected`
    case 'asked':
      return `requesting QoS ${qos} …`
    case 'granted':
      return granted === qos ? `QoS ${qos}` : `QoS ${granted} granted, ${qos} requested`
    case 'refused':
      return objection ?? 'Refused'
    case 'leaving':
      return 'unsubscribing …'
  }
}

/**
 * @param {HTMLElement} target
 * @param {string} text
 */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text
}
