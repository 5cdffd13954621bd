/**
 * The log of messages, newest first. The browser's scroll anchoring keeps the position of a reader who has scrolled
 * down.
 */

import { byId, oncePerFrame } from './dom.js'
import { messageRow } from './message-row.js'
import { KEPT_MESSAGES } from './message-store.js'
import { matches, objectionToFilter } from './topic-filter.js'

/** @typedef {import('./message-store.js').Message} Message */

const list = byId('messages', HTMLOListElement)
const empty = byId('log-empty', HTMLElement)
const count = byId('log-count', HTMLElement)
const search = byId('log-filter', HTMLInputElement)
const pause = byId('pause', HTMLButtonElement)
const announcer = byId('log-announcer', HTMLElement)

/** Interval of the summaries for screen readers. */
const ANNOUNCE_EVERY_MS = 4_000

/** Rows per frame; one takes about 0.1 ms with its layout. */
const ROWS_PER_FRAME = 40

/** A frame with more rows highlights none: in a burst, each frame would compute the styles of hundreds. */
const HIGHLIGHTED_PER_FRAME = 2

/**
 * @param {import('./message-store.js').MessageStore} store
 * @returns {() => void} to be called after messages were added to the store; draws with the next frame
 */
export function wireLog(store) {
  /** The newest message that was drawn or skipped. */
  let drawn = 0
  let paused = false
  /** Number of messages at the time of the pause. */
  let receivedAtPause = 0

  const draw = () => {
    const limit = paused ? receivedAtPause : store.received
    const fresh = store.newest(drawn).filter(({ id }) => id <= limit)
    // Oldest first, to keep the order; messages that wait too long are skipped.
    const batch = fresh.slice(-ROWS_PER_FRAME)
    drawn = batch[0]?.id ?? drawn
    prepend(batch.filter(wanted(search.value)))
    renderCount(store, store.received - limit)
    renderEmpty(store.received)
    if (batch.length < fresh.length) schedule()
  }
  const schedule = oncePerFrame(draw)
  const redraw = () => {
    list.replaceChildren()
    drawn = 0
    draw()
  }

  search.addEventListener('input', oncePerFrame(redraw))
  pause.addEventListener('click', () => {
    paused = !paused
    receivedAtPause = store.received
    pause.setAttribute('aria-pressed', String(paused))
    pause.textContent = paused ? 'Resume' : 'Pause'
    draw()
  })
  byId('clear', HTMLButtonElement).addEventListener('click', () => {
    store.clear()
    receivedAtPause = 0
    redraw()
  })

  const announce = announcements(store)
  return () => {
    schedule()
    announce()
  }
}

/** @param {Message[]} messages newest first */
function prepend(messages) {
  const rows = document.createDocumentFragment()
  for (const message of messages) {
    const row = messageRow(message)
    row.classList.toggle('arriving', messages.length <= HIGHLIGHTED_PER_FRAME)
    rows.append(row)
  }
  list.prepend(rows)
  while (list.children.length > KEPT_MESSAGES) list.lastElementChild?.remove()
}

/**
 * @param {string} query a text, or a topic filter with a wildcard
 * @returns {(message: Message) => boolean}
 */
function wanted(query) {
  if (query === '') return () => true
  const text = query.toLowerCase()
  const isFilter = /[+#]/.test(query) && objectionToFilter(query) === undefined
  return ({ topic, payload }) =>
    topic.toLowerCase().includes(text) ||
    payload.text.toLowerCase().includes(text) ||
    (isFilter && matches(query, topic))
}

/**
 * @param {import('./message-store.js').MessageStore} store
 * @param {number} held how many arrived while paused
 */
function renderCount({ received, dropped }, held) {
  const parts = [received === 0 ? 'none yet' : `${received.toLocaleString('en')} received`]
  if (search.value !== '') parts.push(`${list.children.length} shown`)
  if (held > 0) parts.push(`${held.toLocaleString('en')} since the pause`)
  if (dropped > 0) parts.push(`the oldest ${dropped.toLocaleString('en')} dropped`)
  count.textContent = parts.join(' · ')
}

/** @param {number} received */
function renderEmpty(received) {
  empty.hidden = list.children.length > 0
  empty.classList.toggle('filtered', received > 0)
  if (empty.hidden) return
  const filtered = received > 0 && search.value !== ''
  byId('log-empty-title', HTMLElement).textContent = filtered
    ? 'No message matches the filter.'
    : received > 0
      ? 'Paused.'
      : 'Quiet so far.'
}

/** @param {import('./message-store.js').MessageStore} store */
function announcements(store) {
  let announced = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer
  const announce = () => {
    timer = undefined
    const fresh = store.received - announced
    announced = store.received
    const [latest] = store.newest(store.received - 1)
    if (fresh <= 0 || latest === undefined) return
    const text = latest.payload.kind === 'binary' ? 'binary' : latest.payload.text.slice(0, 120)
    announcer.textContent = `${fresh === 1 ? 'New message' : `${fresh} new messages, the latest`} on ${latest.topic}: ${text}`
  }
  return () => {
    if (timer === undefined) timer = setTimeout(announce, announcer.textContent === '' ? 0 : ANNOUNCE_EVERY_MS)
  }
}
