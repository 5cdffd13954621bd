/** The table of the busiest topics, sorted by a column. */

import { bytes, count, rate } from './dashboard-numbers.js'
import { renderRows } from './dashboard-table.js'
import { byId } from './dom.js'

/** @typedef {import('./dashboard-stream.js').Topic} Topic */

/** Characters of a payload in its row. */
const EXCERPT = 200

/** @type {Record<string, (a: Topic, b: Topic) => number>} */
const orders = {
  topic: (a, b) => (a.topic < b.topic ? -1 : 1),
  rate: (a, b) => b.rate - a.rate || b.time.localeCompare(a.time),
  messages: (a, b) => b.messages - a.messages || b.time.localeCompare(a.time),
  time: (a, b) => b.time.localeCompare(a.time),
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })

/**
 * @param {(topic: string) => void} onChosen called with the topic of a row that is clicked
 * @returns {(topics: Topic[]) => void} shows topics
 */
export function wireTopics(onChosen) {
  const body = byId('topics', HTMLElement)
  const empty = byId('topics-empty', HTMLElement)
  const search = byId('topics-search', HTMLInputElement)
  const shownCount = byId('topics-count', HTMLElement)
  const heads = [...document.querySelectorAll('th[data-sort]')]
  /** @type {Topic[]} */
  let topics = []
  let sorted = 'rate'

  const draw = () => {
    const text = search.value.toLowerCase()
    const wanted = topics.filter(
      ({ topic, payload = '' }) => topic.toLowerCase().includes(text) || payload.toLowerCase().includes(text),
    )
    const shown = wanted.sort(orders[sorted])
    renderRows(
      body,
      shown.map(each => ({ key: each.topic, cells: cellsOf(each, onChosen) })),
    )
    empty.hidden = shown.length > 0
    empty.textContent = topics.length > 0 ? 'No topic matches.' : 'No messages yet.'
    const all = topics.length === 1 ? '1 topic' : `${topics.length} topics`
    shownCount.textContent = topics.length === 0 ? '' : text === '' ? all : `${shown.length} of ${all}`
    for (const head of heads) {
      const isSorted = head instanceof HTMLElement && head.dataset['sort'] === sorted
      head.setAttribute('aria-sort', isSorted ? (sorted === 'topic' ? 'ascending' : 'descending') : 'none')
    }
  }
  for (const head of heads) {
    head.querySelector('button')?.addEventListener('click', () => {
      sorted = (head instanceof HTMLElement && head.dataset['sort']) || sorted
      draw()
    })
  }
  search.addEventListener('input', draw)
  return fresh => {
    topics = fresh
    draw()
  }
}

/**
 * @param {Topic} topic
 * @param {(topic: string) => void} onChosen
 * @returns {import('./dashboard-table.js').Cell[]}
 */
function cellsOf({ topic, messages, rate: perSecond, time, size, payload, payloadBase64 }, onChosen) {
  const isHidden = payload === undefined && payloadBase64 === undefined
  const isText = payload !== undefined && size > 0
  const text = isHidden
    ? 'not yours to read'
    : isText
      ? payload.slice(0, EXCERPT)
      : size === 0
        ? 'empty'
        : `${bytes(size)} that are no text`
  return [
    {
      text: topic,
      className: 'mono topic-name',
      isCode: true,
      title: `Watch ${topic}`,
      onClick: () => onChosen(topic),
    },
    { text: rate(perSecond), className: 'number' },
    { text: messages === 0 ? '–' : count(messages), className: 'number' },
    { text: clock.format(new Date(time)), className: 'number' },
    { text, className: isText ? 'mono excerpt' : 'excerpt dim', isCode: true, title: isText ? bytes(size) : '' },
  ]
}
