/** The panel that publishes. */

import { asSentence } from './close-reasons.js'
import { byId, chosenQos, showObjection } from './dom.js'
import { readProperties } from './properties.js'
import { objectionToTopic } from './topic-filter.js'

/** @typedef {import('./connection.js').Outgoing} Outgoing */

const form = byId('publish-form', HTMLFormElement)
const topic = byId('topic', HTMLInputElement)
const payload = byId('payload', HTMLTextAreaElement)
const retain = byId('retain', HTMLInputElement)
const objectionPlace = byId('publish-objection', HTMLElement)
const outcome = byId('publish-outcome', HTMLElement)

/** The fields of MQTT 5; only the MQTT page has them. */
const fields =
  document.getElementById('properties-fields') === null
    ? undefined
    : {
        contentType: byId('content-type', HTMLInputElement),
        expiry: byId('expiry', HTMLInputElement),
        userProperties: byId('user-properties', HTMLTextAreaElement),
      }

/**
 * @param {boolean} isEnabled whether the connection speaks MQTT 5
 */
export function enableProperties(isEnabled) {
  byId('properties-fields', HTMLFieldSetElement).disabled = !isEnabled
  byId('properties-hint', HTMLElement).hidden = isEnabled
}

/**
 * Reads the properties, and shows which field is not valid.
 *
 * @returns {ReturnType<typeof readProperties>}
 */
function readFields() {
  if (fields === undefined || byId('properties-fields', HTMLFieldSetElement).disabled) return {}
  const { contentType, expiry, userProperties } = fields
  const answers = { contentType: contentType.value, expiry: expiry.value, userProperties: userProperties.value }
  const read = readProperties(answers)
  for (const field of Object.values(fields)) field.removeAttribute('aria-invalid')
  if (read.field !== undefined) {
    fields[read.field].setAttribute('aria-invalid', 'true')
    fields[read.field].focus()
  }
  return read
}

/** The content of the form, for the terminal commands. */
export function draft() {
  return { topic: topic.value, payload: payload.value }
}

/**
 * @callback Publish resolves with the acknowledgement; if that does not imply permission, with a promise of whether the
 *   message was seen
 * @param {Outgoing} outgoing
 * @returns {Promise<{ seen: Promise<boolean>, hasSubscribers: boolean } | void>}
 */

/** @param {{ publish: Publish, onDraft: () => void }} actions */
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
    const { properties, objection } = readFields()
    objectionPlace.textContent = objection ?? ''
    if (objection === undefined) {
      send({ payload: payload.value, retain: retain.checked, ...(properties && { properties }) })
    }
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

/** Number of the latest publish, whose outcome is shown. */
let latest = 0

/**
 * @param {Publish} publish
 * @param {Outgoing} outgoing
 */
async function report(publish, outgoing) {
  const { qos, retain, payload } = outgoing
  const what = retain && payload === '' ? 'Retained message cleared' : retain ? 'Published and retained' : 'Published'
  const since = performance.now()
  const number = ++latest
  const say = (/** @type {Parameters<typeof show>} */ ...args) => number === latest && show(...args)
  say('pending', qos === 0 ? 'Sending …' : 'Waiting for the acknowledgement …')
  try {
    const result = await publish(outgoing)
    const acknowledged = `acknowledged after ${Math.round(performance.now() - since)} ms (QoS ${qos})`
    const done = qos === 0 ? `${what}. At QoS 0 nobody acknowledges.` : `${what}, ${acknowledged}.`
    if (!result) {
      say('done', done)
      return
    }
    say('pending', qos === 0 ? 'Sent. At QoS 0 nobody acknowledges.' : `Sent, ${acknowledged}.`)
    const heard = result.hasSubscribers ? done : `${done} No client has subscribed to this topic.`
    if (await result.seen) say('done', heard)
    else say('done', `Sent${qos === 0 ? '' : `, ${acknowledged}`}. ${unconfirmed}`)
  } catch (error) {
    say('failed', error instanceof Error ? asSentence(error.message) : String(error))
  }
}

/** MQTT 3.1.1 §3.3.5: a broker that does not allow a PUBLISH acknowledges it all the same, or ends the connection. */
const unconfirmed =
  'The broker may not permit it, which MQTT cannot report: no subscription of this page has received it.'

/**
 * @param {'pending' | 'done' | 'failed'} state
 * @param {string} text
 */
function show(state, text) {
  outcome.dataset['state'] = state
  outcome.textContent = text
}
