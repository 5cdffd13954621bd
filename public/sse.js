/** The page for event streams: messages on one side, their receipts on the other. */

import { button, byId, element } from './dom.js'
import { PushPage } from './push-page.js'
import { ReceiptsView } from './receipts-view.js'

/** @typedef {import('./mqway.js').ReceiptStatus} ReceiptStatus */

const automatic = byId('acknowledge', HTMLInputElement)
const ask = byId('ask', HTMLInputElement)
const within = byId('within', HTMLSelectElement)
const view = new ReceiptsView()
const outcome = byId('receipt-outcome', HTMLElement)

const PREFIX = 'receipts/'

/** Maximum length of a payload beside its receipts, in UTF-16 code units. */
const EXCERPT = 80

const page = new PushPage({
  transport: 'sse',
  path: '/v1/events',
  topics: ['/news/+/sport'],
  beside: topic => PREFIX + topic,
  onBesideRefused: topic => {
    outcome.textContent = `You may not read receipts of ${topic}.`
  },
  onEvent({ id, topic, payload, payloadBase64, retained }) {
    if (topic.startsWith(PREFIX)) {
      takeReceipt(payload)
      return undefined
    }
    if (retained) return {}
    view.know(id, payloadBase64 === undefined ? (payload ?? '').slice(0, EXCERPT) : 'binary')
    if (automatic.checked) acknowledge(id, 'received')
    return { actions: () => [action(id, 'processed', 'Processed'), action(id, 'failed', 'Failed')] }
  },
  publishOptions: () => (ask.checked ? { receipt: { from: 'present', within: within.value } } : {}),
})

/** @param {string | undefined} payload as the gateway writes it on `receipts/<topic>` */
function takeReceipt(payload) {
  const { type, id, topic, device, devices, status, time, deadline, detail = '' } = JSON.parse(payload ?? '')
  if (type === 'receipt') view.answer(id, topic, device, { outcome: status, time: new Date(time), detail })
  else if (type === 'missed') {
    for (const name of devices)
      view.answer(id, topic, name, { outcome: 'missed', time: new Date(deadline), detail: '' })
  }
}

/**
 * @param {string} id
 * @param {ReceiptStatus} status
 * @param {string} [detail]
 */
async function acknowledge(id, status, detail) {
  try {
    await page.receipt(id, status, detail)
  } catch (error) {
    outcome.textContent = `Not acknowledged: ${error instanceof Error ? error.message : String(error)}`
  }
}

/**
 * @param {string} id
 * @param {ReceiptStatus} status
 * @param {string} label
 */
function action(id, status, label) {
  const control = button(label, 'quiet small', () => {
    acknowledge(id, status, 'by hand, in the page')
    const place = control.parentElement
    for (const each of place?.querySelectorAll('.acting') ?? []) each.remove()
    place?.append(element('span', 'badge', status))
  })
  control.classList.add('acting')
  return control
}
