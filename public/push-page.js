/** What the pages for event streams, long-polls and sockets share: head, topics, log and publishing. */

import { byId, oncePerFrame } from './dom.js'
import { wireLog } from './message-log.js'
import { MessageStore } from './message-store.js'
import { connect } from './mqway.js'
import { describePayload } from './payload.js'
import { wirePublish } from './publish-view.js'
import { renderHead, renderLoss, wireHead } from './push-head.js'
import { wireTopics } from './push-topics.js'
import { showParcel } from './way-parcel.js'

/**
 * @typedef {import('./mqway.js').Client} Client
 * @typedef {import('./mqway.js').ClientState} ClientState
 * @typedef {import('./mqway.js').PushEvent} PushEvent
 * @typedef {import('./message-store.js').Message} Message
 */

/** @type {Record<string, string>} */
const gapSentences = {
  evicted: 'Events are missing here: the gateway no longer keeps them.',
  'other-epoch': 'Events may be missing here: the gateway has lost its journal.',
  unknown: 'Events may be missing here: the gateway does not know where this page was.',
  missed: 'Events are missing here: the gateway could not write them down.',
}

/**
 * @typedef {object} PushPage
 * @property {Client} client
 * @property {(message: Omit<Message, 'id'>) => void} show adds a line to the log
 */

/**
 * @param {object} options
 * @param {import('./mqway.js').Transport} options.transport the only one that this page uses
 * @param {string} options.path its endpoint
 * @param {string[]} options.topics what is listened to at first
 * @param {(topics: string[]) => string[]} [options.beside] what is subscribed to with these topics, and is no news
 * @param {(event: PushEvent, client: Client) => Partial<Message> | undefined} [options.onEvent] what else the log shows of it;
 *   `undefined` where it does not belong there
 * @param {(state: ClientState, client: Client) => void} [options.onState]
 * @param {(client: Client) => import('./mqway.js').PublishOptions} [options.publishOptions]
 * @param {() => void} [options.onDraft] what is about to be published has changed
 * @returns {PushPage}
 */
export function startPushPage(options) {
  const { transport, path, topics, beside = () => [], onEvent = () => ({}), onState, publishOptions, onDraft } = options
  const store = new MessageStore()
  const draw = wireLog(store)
  const notice = byId('notice', HTMLElement)
  const showFault = (/** @type {unknown} */ error) => {
    notice.hidden = false
    notice.textContent = `Something went wrong in this page: ${error instanceof Error ? error.message : String(error)}`
  }
  window.addEventListener('error', ({ error, message }) => showFault(error ?? message))
  window.addEventListener('unhandledrejection', ({ reason }) => showFault(reason))

  /** @param {Omit<Message, 'id'>} message */
  const show = message => {
    store.add(message)
    draw()
  }
  const client = connect({
    topics: [...topics, ...beside(topics)],
    transports: [transport],
    onEvent(event) {
      const more = onEvent(event, client)
      if (more === undefined) return
      showParcel('in')
      show({ ...messageOf(event), ...more })
    },
    onGap({ reason }) {
      const sentence = gapSentences[reason] ?? ''
      renderLoss(sentence)
      show(noteOf(sentence))
    },
    onState(state) {
      renderHead(state)
      onState?.(state, client)
    },
  })
  wireHead(path, () => client.tryNow())
  wireTopics(topics, {
    onAdd: topic => client.subscribe(topic, ...beside([topic])),
    onRemove: topic => client.unsubscribe(topic, ...beside([topic])),
  })
  wirePublish({
    async publish({ topic, payload, qos, retain }) {
      showParcel('out')
      await client.publish(topic, payload, { qos, retain, ...publishOptions?.(client) })
    },
    onDraft: oncePerFrame(() => onDraft?.()),
  })
  return { client, show }
}

/**
 * @param {PushEvent} event
 * @returns {Omit<Message, 'id'>}
 */
export function messageOf({ topic, time, retained = false, payload, payloadBase64 }) {
  const bytes =
    payloadBase64 === undefined
      ? new TextEncoder().encode(payload)
      : Uint8Array.from(atob(payloadBase64), character => character.charCodeAt(0))
  return {
    topic,
    time: new Date(time),
    payload: describePayload(bytes),
    retained,
    duplicate: false,
    hues: [0],
  }
}

/**
 * A line of the page's own.
 *
 * @param {string} text
 * @returns {Omit<Message, 'id'>}
 */
function noteOf(text) {
  const payload = describePayload(new TextEncoder().encode(text))
  return { topic: '', time: new Date(), payload, retained: false, duplicate: false, hues: [], note: true }
}
