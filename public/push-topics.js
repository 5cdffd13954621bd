/** The panel with the topics of the push connection. */

import { button, byId, element, foreign, showObjection } from './dom.js'
import { objectionToFilter } from './topic-filter.js'

const form = byId('subscribe-form', HTMLFormElement)
const filter = byId('filter', HTMLInputElement)
const objectionPlace = byId('filter-objection', HTMLElement)
const list = byId('topics', HTMLUListElement)

/**
 * @param {string[]} initial
 * @param {{ onAdd: (topic: string) => void, onRemove: (topic: string) => void }} actions
 */
export function wireTopics(initial, { onAdd, onRemove }) {
  const topics = new Set(initial)
  const render = () => {
    list.replaceChildren(
      ...[...topics].map(topic => {
        const remove = button('×', 'remove', () => {
          topics.delete(topic)
          render()
          filter.focus()
          onRemove(topic)
        })
        remove.setAttribute('aria-label', `Stop listening to ${topic}`)
        return element('li', 'listened hue-0', element('span', 'swatch'), foreign('code', '', topic), remove)
      }),
    )
  }
  form.addEventListener('submit', event => {
    event.preventDefault()
    const topic = filter.value
    const objection = objectionToFilter(topic)
    showObjection(filter, objectionPlace, objection)
    if (objection !== undefined || topics.has(topic)) return
    topics.add(topic)
    render()
    onAdd(topic)
  })
  filter.addEventListener('input', () => {
    if (objectionToFilter(filter.value) === undefined) showObjection(filter, objectionPlace, undefined)
  })
  render()
}
