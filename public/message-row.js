/** One message of the log. */

import { button, element, foreign } from './dom.js'
import { formatSize, KEPT_BYTES, prettyJson } from './payload.js'

/** @typedef {import('./message-store.js').Message} Message */

/** Characters of a text above “Show all”: the layout of 500 rows of 64 KiB each would be slow. */
const PREVIEW_CHARACTERS = 600

const clock = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  fractionalSecondDigits: 3,
})

/** @param {Message} message */
export function messageRow(message) {
  const { payload, topic, time } = message
  const shown = foreign('pre', `payload payload-${payload.kind}`, previewOf(payload))
  const facts = element('p', 'facts', ...badges(message), element('span', 'size', formatSize(payload.size)))
  if (payload.kind === 'json') facts.append(toggle('Pretty', 'As sent', shown, () => prettyJson(payload.text), payload))
  else if (payload.text.length > PREVIEW_CHARACTERS)
    facts.append(toggle('Show all', 'Less', shown, () => wholeOf(payload), payload))
  const when = element('time', 'when', clock.format(time))
  when.dateTime = time.toISOString()
  if (message.note)
    return element('li', 'message note', element('span', 'stripes'), when, element('p', 'topic', payload.text))
  if (message.actions) facts.append(...message.actions())
  return element(
    'li',
    'message',
    element('span', 'stripes', ...message.hues.map(hue => element('i', `hue-${hue}`))),
    when,
    foreign('span', 'topic mono', topic),
    facts,
    shown,
    ...propertyList(message.properties ?? []),
  )
}

/** @param {import('./properties.js').PropertyLine[]} properties */
function propertyList(properties) {
  if (properties.length === 0) return []
  const pairs = properties.map(({ name, value, user }) =>
    element('div', '', user ? foreign('dt', 'mono', name) : element('dt', '', name), foreign('dd', 'mono', value)),
  )
  return [element('dl', 'message-properties', ...pairs)]
}

/** @param {Message} message */
function badges({ qos, retained, duplicate, payload, label }) {
  const all = qos === undefined ? [] : [element('span', `badge qos-${qos}`, `QoS ${qos}`)]
  if (retained) all.push(element('span', 'badge retained', 'retained'))
  if (duplicate) all.push(element('span', 'badge duplicate', 'duplicate'))
  if (payload.kind === 'binary') all.push(element('span', 'badge binary', 'binary'))
  if (label !== undefined) all.push(element('span', 'badge', label))
  return all
}

/** @param {Message['payload']} payload */
function previewOf({ kind, text }) {
  if (kind === 'empty') return 'empty payload'
  return text.length > PREVIEW_CHARACTERS ? `${text.slice(0, PREVIEW_CHARACTERS)} …` : text
}

/** @param {Message['payload']} payload */
function wholeOf({ kind, text, cut, size }) {
  if (!cut) return text
  const kept = kind === 'binary' ? 'the first 512 bytes' : `the first ${formatSize(KEPT_BYTES)}`
  return `${text}\n… ${kept} of ${formatSize(size)}; the rest was not stored.`
}

/**
 * @param {string} more
 * @param {string} less
 * @param {HTMLElement} shown
 * @param {() => string} whole
 * @param {Message['payload']} payload
 */
function toggle(more, less, shown, whole, payload) {
  const control = button(more, 'quiet small', () => {
    const open = control.getAttribute('aria-expanded') !== 'true'
    control.setAttribute('aria-expanded', String(open))
    control.textContent = open ? less : more
    shown.classList.toggle('open', open)
    shown.textContent = open ? whole() : previewOf(payload)
  })
  control.setAttribute('aria-expanded', 'false')
  return control
}
