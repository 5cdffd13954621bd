/**
 * One MQTT connection with reconnects, on top of Paho. Without DOM.
 *
 * @typedef {import('./close-reasons.js').Reason} Reason
 *
 * @typedef {object} Settings
 * @property {string} url ws:// or wss://, with the path
 * @property {string} path
 * @property {string} clientId
 * @property {string} userName empty: none
 * @property {string} password
 *
 * @typedef {{ phase: 'connecting', failures: number }
 *   | { phase: 'connected', since: number, version: string }
 *   | { phase: 'waiting', reason: Reason, retryAt: number, failures: number, loss?: Reason }
 *   | { phase: 'stopped', reason?: Reason }} ConnectionState
 *
 * @typedef {object} Arrival
 * @property {string} topic
 * @property {Uint8Array} bytes a view into the received frame, valid during the call only
 * @property {0 | 1 | 2} qos
 * @property {boolean} retained
 * @property {boolean} duplicate
 *
 * @typedef {object} Outgoing
 * @property {string} topic
 * @property {string} payload
 * @property {0 | 1 | 2} qos
 * @property {boolean} retain
 */

import { backoff } from './backoff.js'
import { explainPaho } from './close-reasons.js'
import { explainSocket } from './gateway-probe.js'
import { requestTicket } from './login.js'
import { recordSockets } from './socket-recorder.js'

const CONNECT_TIMEOUT_S = 10
const KEEP_ALIVE_S = 30
/** After a connection of this duration, failures are counted anew. */
const GOOD_AFTER_MS = 5_000

export class Connection {
  #handlers
  #latestSocket = recordSockets()
  /** @type {Settings | undefined} */
  #settings
  /** @type {Paho.Client | undefined} */
  #client
  /** @type {ConnectionState} */
  #state = { phase: 'stopped' }
  #failures = 0
  /** Whether the handshake needs credentials, and not only CONNECT. */
  #needsTicket = false
  /** Why the last good connection ended: the tries that fail after it have other reasons. @type {Reason | undefined} */
  #loss
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer
  /** @type {Map<Paho.Message, { resolve: () => void, reject: (error: Error) => void }>} */
  #unacknowledged = new Map()

  /** @param {{ onState: (state: ConnectionState) => void, onMessage: (arrival: Arrival) => void }} handlers */
  constructor(handlers) {
    this.#handlers = handlers
  }

  get connected() {
    return this.#state.phase === 'connected'
  }

  get stopped() {
    return this.#state.phase === 'stopped'
  }

  /**
   * Connects, and reconnects until `stop` or a permanent refusal.
   *
   * @param {Settings} settings
   */
  start(settings) {
    this.#abandon()
    this.#settings = settings
    this.#failures = 0
    this.#needsTicket = false
    this.#loss = undefined
    this.#open()
  }

  /** Disconnects without reconnecting. */
  stop() {
    this.#abandon()
    this.#setState({ phase: 'stopped' })
  }

  /** Connects at once, if it waits for the next attempt. */
  tryNow() {
    if (this.#state.phase === 'waiting') this.#open()
  }

  /**
   * @param {string} filter
   * @param {0 | 1 | 2} qos
   * @returns {Promise<number>} the granted QoS; rejects when the broker refuses
   */
  subscribe(filter, qos) {
    return new Promise((resolve, reject) => {
      this.#connectedClient().subscribe(filter, {
        qos,
        onSuccess: ({ grantedQos }) => resolve(grantedQos[0] ?? qos),
        onFailure: () => reject(new Error('The broker refused this subscription (return code 0x80).')),
      })
    })
  }

  /**
   * @param {string} filter
   * @returns {Promise<void>}
   */
  unsubscribe(filter) {
    return new Promise(resolve => this.#connectedClient().unsubscribe(filter, { onSuccess: () => resolve() }))
  }

  /**
   * @param {Outgoing} outgoing
   * @returns {Promise<void>} resolves with the acknowledgement; at QoS 0, which has none, when it was handed to the socket
   */
  publish({ topic, payload, qos, retain }) {
    return new Promise((resolve, reject) => {
      const client = this.#connectedClient()
      const message = new Paho.Message(payload)
      message.destinationName = topic
      message.qos = qos
      message.retained = retain
      this.#unacknowledged.set(message, { resolve, reject })
      client.send(message)
    })
  }

  #connectedClient() {
    if (this.#client === undefined || !this.connected) throw new Error('Not connected: nothing was sent.')
    return this.#client
  }

  #open() {
    const settings = this.#settings
    if (settings === undefined) return
    clearTimeout(this.#timer)
    this.#setState({ phase: 'connecting', failures: this.#failures })
    if (this.#needsTicket) this.#openWithTicket(settings)
    else this.#openAt(settings.url, settings)
  }

  /**
   * A browser sends no password with a handshake: it is exchanged for a ticket.
   *
   * @param {Settings} settings
   */
  async #openWithTicket(settings) {
    const before = this.#state
    try {
      const ticket = await requestTicket(settings)
      if (this.#state !== before) return
      const url = new URL(settings.url)
      url.searchParams.set('ticket', ticket)
      this.#openAt(url.href, settings)
    } catch (error) {
      if (this.#state !== before) return
      const isAway = error instanceof TypeError || !(error instanceof Error)
      if (isAway) this.#retry({ sentence: 'Nothing answers at this address. Is the gateway running?' })
      else this.#setState({ phase: 'stopped', reason: { sentence: error.message, login: true, final: true } })
    }
  }

  /** @param {Reason} reason */
  #retry(reason) {
    this.#failures += 1
    this.#wait(reason)
  }

  /**
   * @param {string} url
   * @param {Settings} settings
   */
  #openAt(url, settings) {
    const client = new Paho.Client(url, settings.clientId)
    this.#client = client
    client.onMessageArrived = message => this.#arrived(message)
    client.onMessageDelivered = message => {
      this.#unacknowledged.get(message)?.resolve()
      this.#unacknowledged.delete(message)
    }
    client.onConnectionLost = error => this.#ended(client, error)
    client.connect({
      timeout: CONNECT_TIMEOUT_S,
      keepAliveInterval: KEEP_ALIVE_S,
      cleanSession: true,
      ...(settings.userName === '' ? {} : { userName: settings.userName, password: settings.password }),
      onSuccess: () => this.#opened(client),
      onFailure: error => this.#ended(client, error),
    })
  }

  /** @param {Paho.Client} client */
  #opened(client) {
    if (client !== this.#client) return
    const version = this.#latestSocket()?.socket.protocol === 'mqttv3.1' ? 'MQTT 3.1' : 'MQTT 3.1.1'
    this.#loss = undefined
    this.#setState({ phase: 'connected', since: Date.now(), version })
  }

  /** @param {Paho.Message} message */
  #arrived(message) {
    this.#handlers.onMessage({
      topic: message.destinationName,
      bytes: message.payloadBytes,
      qos: message.qos,
      retained: message.retained,
      duplicate: message.duplicate,
    })
  }

  /**
   * @param {Paho.Client} client
   * @param {Paho.PahoError} error
   */
  #ended(client, error) {
    if (client !== this.#client) return
    const before = this.#state
    const record = this.#latestSocket()
    this.#abandon()
    const known = explainPaho(error.errorCode, error.errorMessage)
    if (known?.final) {
      this.#setState({ phase: 'stopped', reason: known })
      return
    }
    const wasConnected = before.phase === 'connected'
    if (wasConnected && Date.now() - before.since > GOOD_AFTER_MS) this.#failures = 0
    const reason = known ?? { sentence: wasConnected ? 'The connection was lost.' : 'No connection.' }
    if (wasConnected) this.#loss = reason
    this.#retry(reason)
    if (known === undefined) this.#findReason(record)
  }

  /** @param {Reason} reason */
  #wait(reason) {
    const delay = Math.max(backoff(this.#failures), (reason.retryAfter ?? 0) * 1_000)
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.tryNow(), delay)
    const retryAt = Date.now() + delay
    this.#setState({
      phase: 'waiting',
      reason,
      retryAt,
      failures: this.#failures,
      ...(this.#loss && { loss: this.#loss }),
    })
  }

  /**
   * The countdown starts before the reason is known, so that asking for it delays nothing.
   *
   * @param {import('./socket-recorder.js').SocketRecord | undefined} record
   */
  async #findReason(record) {
    const waiting = this.#state
    const reason = await explainSocket(record, this.#settings?.path ?? '/')
    if (this.#state !== waiting || waiting.phase !== 'waiting') return
    if (waiting.loss === waiting.reason) this.#loss = reason
    if (reason.login && !this.#needsTicket && this.#settings?.userName) {
      this.#needsTicket = true
      this.tryNow()
    } else if (reason.final) {
      clearTimeout(this.#timer)
      this.#setState({ phase: 'stopped', reason })
    } else if (reason.retryAfter === undefined) {
      this.#setState({ ...waiting, reason, ...(this.#loss && { loss: this.#loss }) })
    } else {
      this.#wait(reason)
    }
  }

  /** Releases the client and its timers. */
  #abandon() {
    clearTimeout(this.#timer)
    const client = this.#client
    this.#client = undefined
    if (client?.isConnected()) client.disconnect()
    // Paho closes only an open socket; a connecting one would open later.
    const socket = this.#latestSocket()?.socket
    if (socket?.readyState === WebSocket.CONNECTING) socket.close()
    for (const { reject } of this.#unacknowledged.values()) {
      reject(new Error('The connection ended before the acknowledgement: the message may have arrived, or not.'))
    }
    this.#unacknowledged.clear()
  }

  /** @param {ConnectionState} state */
  #setState(state) {
    this.#state = state
    this.#handlers.onState(state)
  }
}
