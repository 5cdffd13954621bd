/** The panel that publishes. */

import { byId, chosenQos, showObjection } from './dom.js'
import { objectionToTopic } from './topic-filter.js'

/** @typedef {import('./connection.js').Outgoing} Outgoing */

const form = byId('publish-form', HTMLFormElement)
const topic = byId('topic', HTMLInputElement)
const payload = byId('payload', HTMLTextAreaElement)
const retain = byId('retain', HTMLInputElement)
const objectionPlace = byId('publish-objection', HTMLElement)
const outcome = byId('publish-outcome', HTMLElement)

/** What the form holds, for the commands that do the same from a terminal. */
export function draft() {
  return { topic: topic.value, payload: payload.value }
}

/** @param {{ publish: (outgoing: Outgoing) => Promise<void>, onDraft: () => void }} actions */
export function wirePublish({ publish, onDraft }) {
  /** @param {Omit<Outgoing, 'topic' | 'qos'>} what */
  const send = async what => {
    const objection = objectionToTopic(topic.value)
    showObjection(topic, objectionPlace, objection)
    if (objection !== undefined) {
      topic.focus()
      return
    }
    await report(publish, { ...what, topic: topic.value, qos: chosenQos(form, 'publish-qos') })
  }

  form.addEventListener('submit', event => {
    event.preventDefault()
    send({ payload: payload.value, retain: retain.checked })
  })
  form.addEventListener('keydown', event => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return
    event.preventDefault()
    form.requestSubmit()
  })
  byId('clear-retained', HTMLButtonElement).addEventListener('click', () => send({ payload: '', retain: true }))
  form.addEventListener('input', () => {
    if (objectionToTopic(topic.value) === undefined) showObjection(topic, objectionPlace, undefined)
    onDraft()
  })
}

/**
 * @param {(outgoing: Outgoing) => Promise<void>} publish
 * @param {Outgoing} outgoing
 */
async function report(publish, outgoing) {
  const { qos, retain, payload } = outgoing
  const what = retain && payload === '' ? 'Retained message cleared' : retain ? 'Published and retained' : 'Published'
  const since = performance.now()
  show('pending', qos === 0 ? 'Sending …' : 'Waiting for the acknowledgement …')
  try {
    await publish(outgoing)
    if (qos === 0) show('done', `${what}. At QoS 0 nobody acknowledges.`)
    else show('done', `${what}, acknowledged after ${Math.round(performance.now() - since)} ms (QoS ${qos}).`)
  } catch (error) {
    show('failed', error instanceof Error ? error.message : String(error))
  }
}

/**
 * @param {'pending' | 'done' | 'failed'} state
 * @param {string} text
 */
function show(state, text) {
  outcome.dataset['state'] = state
  outcome.textContent = text
}
