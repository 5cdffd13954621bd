/** The parts that the pages for event streams, long-polls and sockets share: header, topics, log and publishing. */

import { byId, oncePerFrame } from './dom.js'
import { helpsLogin } from './login.js'
import { LoginView } from './login-view.js'
import { animateMessage } from './message-animation.js'
import { wireLog } from './message-log.js'
import { MessageStore } from './message-store.js'
import { connect } from './mqway.js'
import { describePayload } from './payload.js'
import { wirePublish } from './publish-view.js'
import { renderHeader, renderLoss, wireHeader } from './push-header.js'
import { messageOf } from './push-message.js'
import { wireTopics } from './push-topics.js'

/**
 * @typedef {import('./mqway.js').Client} Client
 * @typedef {import('./mqway.js').ClientState} ClientState
 * @typedef {import('./mqway.js').PushEvent} PushEvent
 * @typedef {import('./message-store.js').Message} Message
 */

/** @type {Record<string, string>} */
const gapSentences = {
  evicted: 'Events are missing here: the gateway no longer has them.',
  'other-epoch': 'Events may be missing here: the gateway has lost its journal.',
  unknown: 'Events may be missing here: the gateway does not know the cursor of this page.',
  missed: 'Events are missing here: the gateway could not store them.',
}

/**
 * @typedef {object} PushPageOptions
 * @property {import('./mqway.js').Transport} transport the only one that this page uses
 * @property {string} path its endpoint
 * @property {string[]} topics the initial topics
 * @property {(topic: string) => string} [beside] a companion topic to subscribe to with each topic; left out if it is refused
 * @property {(topic: string) => void} [onBesideRefused] called with a topic whose `beside` is refused
 * @property {(event: PushEvent) => Partial<Message> | undefined} [onEvent] additional fields for the log; `undefined` to keep the event out
 *   of the log
 * @property {(state: ClientState) => void} [onState]
 * @property {() => import('./mqway.js').PublishOptions} [publishOptions]
 * @property {() => void} [onDraft] called when the publish form changes
 */

/** The client of a page, and its views. After a refusal, another client replaces it. */
export class PushPage {
  #options
  #store = new MessageStore()
  #draw = wireLog(this.#store)
  #login = new LoginView(() => this.#reopen())
  /** Topics whose `beside` is refused. @type {Set<string>} */
  #alone = new Set()
  /** @type {Set<string>} */
  #topics
  /** @type {Client} */
  #client

  /** @param {PushPageOptions} options */
  constructor(options) {
    this.#options = options
    const { path, topics, publishOptions, onDraft } = options
    this.#topics = new Set(topics)
    reportFaults()
    this.#client = this.#open()
    wireHeader(path, () => {
      if (this.#client.state.phase === 'closed') this.#reopen()
      else this.#client.tryNow()
    })
    wireTopics(topics, { onAdd: topic => this.#addTopic(topic), onRemove: topic => this.#removeTopic(topic) })
    wirePublish({
      publish: async ({ topic, payload, qos, retain }) => {
        animateMessage('out')
        await this.#request(client => client.publish(topic, payload, { qos, retain, ...publishOptions?.() }))
      },
      onDraft: oncePerFrame(() => onDraft?.()),
    })
  }

  /**
   * Adds a line to the log.
   *
   * @param {Omit<Message, 'id'>} message
   */
  show(message) {
    this.#store.add(message)
    this.#draw()
  }

  /**
   * @param {string} id
   * @param {import('./mqway.js').ReceiptStatus} status
   * @param {string} [detail]
   */
  async receipt(id, status, detail) {
    await this.#request(client => client.receipt(id, status, detail))
  }

  /** @param {string} payload */
  async send(payload) {
    await this.#client.send(payload)
  }

  /**
   * Makes a request, even if the gateway refuses the page's topics; offers a login if that may help.
   *
   * @template T
   * @param {(client: Client) => Promise<T>} request
   */
  async #request(request) {
    const { ticket } = this.#login
    const isRefused = this.#client.state.phase === 'closed'
    const client = isRefused ? connect(ticket && { ticket }) : this.#client
    try {
      return await request(client)
    } catch (error) {
      if (helpsLogin(error)) this.#login.offer(false)
      throw error
    } finally {
      if (isRefused) client.close()
    }
  }

  /** @param {string} [cursor] */
  #open(cursor) {
    const { transport } = this.#options
    const { ticket } = this.#login
    return connect({
      topics: [...this.#topics].flatMap(topic => this.#withBeside(topic)),
      transports: [transport],
      cursor,
      ...(ticket && { ticket }),
      onEvent: event => this.#took(event),
      onGap: ({ reason }) => {
        const sentence = gapSentences[reason] ?? ''
        renderLoss(sentence)
        this.show(noteOf(sentence))
      },
      onState: (state, client) => {
        if (client === this.#client) this.#became(state)
      },
    })
  }

  /** Reconnects from the position of the last client. */
  #reopen() {
    const former = this.#client
    this.#client = this.#open(former.cursor)
    // No longer the page's client: its end is not shown.
    former.close()
    renderHeader(this.#client.state)
  }

  /** @param {ClientState} state */
  #became(state) {
    const error = state.phase === 'closed' ? state.error : undefined
    if (error && this.#leaveOutBeside(error.message)) return
    renderHeader(state)
    if (error && helpsLogin(error)) this.#login.offer(error.status === 401)
    this.#options.onState?.(state)
  }

  /**
   * If only the companion of a topic is refused, the topic alone may be permitted.
   *
   * @param {string} refusal ends with the filter that it is about
   */
  #leaveOutBeside(refusal) {
    const { beside, onBesideRefused } = this.#options
    const topic = [...this.#topics].find(
      each => !this.#alone.has(each) && beside && refusal.endsWith(`: ${beside(each)}`),
    )
    if (topic === undefined) return false
    this.#alone.add(topic)
    onBesideRefused?.(topic)
    this.#reopen()
    return true
  }

  /** @param {PushEvent} event */
  #took(event) {
    const more = this.#options.onEvent ? this.#options.onEvent(event) : {}
    if (more === undefined) return
    animateMessage('in')
    this.show({ ...messageOf(event), ...more })
  }

  /** @param {string} topic */
  #withBeside(topic) {
    const { beside } = this.#options
    return beside && !this.#alone.has(topic) ? [topic, beside(topic)] : [topic]
  }

  /** @param {string} topic */
  #addTopic(topic) {
    this.#topics.add(topic)
    if (this.#client.state.phase === 'closed') this.#reopen()
    else this.#client.subscribe(...this.#withBeside(topic))
  }

  /** @param {string} topic */
  #removeTopic(topic) {
    const gone = this.#withBeside(topic)
    this.#topics.delete(topic)
    this.#alone.delete(topic)
    if (this.#client.state.phase === 'closed') this.#reopen()
    else this.#client.unsubscribe(...gone)
  }
}

/** Shows errors of the page itself. */
function reportFaults() {
  const notice = byId('notice', HTMLElement)
  const showFault = (/** @type {unknown} */ error) => {
    notice.hidden = false
    notice.textContent = `Something went wrong in this page: ${error instanceof Error ? error.message : String(error)}`
  }
  window.addEventListener('error', ({ error, message }) => showFault(error ?? message))
  window.addEventListener('unhandledrejection', ({ reason }) => showFault(reason))
}

/**
 * A note of the page in the log.
 *
 * @param {string} text
 * @returns {Omit<Message, 'id'>}
 */
function noteOf(text) {
  const payload = describePayload(new TextEncoder().encode(text))
  return { topic: '', time: new Date(), payload, retained: false, duplicate: false, hues: [], note: true }
}
