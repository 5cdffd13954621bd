/**
 * One MQTT connection with reconnects, on top of MQTT.js. Without DOM.
 *
 * It speaks MQTT 5, and the newest older version where the broker refuses that. An endpoint may also take the subprotocol of MQTT 3.1
 * only: then no handshake with `mqtt` succeeds.
 *
 * @typedef {import('./close-reasons.js').Reason} Reason
 * @typedef {import('./properties.js').MessageProperties} MessageProperties
 *
 * @typedef {object} Settings
 * @property {string} url ws:// or wss://, with the path
 * @property {string} path
 * @property {string} clientId
 * @property {string} userName empty: none
 * @property {string} password
 *
 * @typedef {{ phase: 'connecting', failures: number }
 *   | { phase: 'connected', since: number, version: string, hasProperties: boolean }
 *   | { phase: 'waiting', reason: Reason, retryAt: number, failures: number, loss?: Reason }
 *   | { phase: 'stopped', reason?: Reason }} ConnectionState
 *
 * @typedef {object} Arrival
 * @property {string} topic
 * @property {Uint8Array} bytes a view into the received frame, valid during the call only
 * @property {0 | 1 | 2} qos
 * @property {boolean} retained
 * @property {boolean} duplicate
 * @property {MessageProperties} [properties]
 *
 * @typedef {object} Outgoing
 * @property {string} topic
 * @property {string} payload
 * @property {0 | 1 | 2} qos
 * @property {boolean} retain
 * @property {MessageProperties} [properties] sent with MQTT 5 only
 *
 * @typedef {object} Acknowledgement
 * @property {boolean} isPermission whether it means that the message was permitted: MQTT 3 acknowledges others, too
 * @property {boolean} hasSubscribers false if the broker says that there is none
 */

import { backoff } from './backoff.js'
import { explainDisconnect, explainError, explainRefusal, isVersionRefused } from './close-reasons.js'
import { explainSocket } from './gateway-probe.js'
import { requestTicket } from './login.js'
import { recordSockets } from './socket-recorder.js'

const CONNECT_TIMEOUT_S = 10
const KEEP_ALIVE_S = 30
/** After a connection of this duration, failures are counted anew. */
const GOOD_AFTER_MS = 5_000
/** PUBACK and PUBREC of MQTT 5: nobody has subscribed to the topic. */
const NO_MATCHING_SUBSCRIBERS = 0x10

/** The versions of MQTT, the newest first. */
const VERSIONS = /** @type {const} */ ([
  { name: 'MQTT 5', protocolVersion: 5, protocolId: 'MQTT' },
  { name: 'MQTT 3.1.1', protocolVersion: 4, protocolId: 'MQTT' },
  { name: 'MQTT 3.1', protocolVersion: 3, protocolId: 'MQIsdp' },
])
const NEWEST = 0
const OLDEST = VERSIONS.length - 1

export class Connection {
  #handlers
  #latestSocket = recordSockets()
  /** @type {Settings | undefined} */
  #settings
  /** @type {mqtt.Client | undefined} */
  #client
  /** @type {ConnectionState} */
  #state = { phase: 'stopped' }
  #failures = 0
  /** Indexes of `VERSIONS`: the newest that the broker has not refused, and that of this try. */
  #usual = NEWEST
  #version = NEWEST
  /** Whether the handshake needs credentials, and not only CONNECT. */
  #needsTicket = false
  /** Why the last good connection ended: the tries that fail after it have other reasons. @type {Reason | undefined} */
  #loss
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer
  /** Rejects the promises of messages without an acknowledgement. @type {Set<() => void>} */
  #unacknowledged = new Set()
  /** Packet identifiers of messages for which the broker has no subscriber. @type {Set<number>} */
  #unmatched = new Set()

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

  /** Whether messages have properties: MQTT 5. */
  get hasProperties() {
    return this.#state.phase === 'connected' && this.#state.hasProperties
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
    this.#usual = NEWEST
    this.#needsTicket = false
    this.#loss = undefined
    this.#try(NEWEST)
  }

  /** Disconnects without reconnecting. */
  stop() {
    this.#abandon()
    this.#setState({ phase: 'stopped' })
  }

  /** Connects at once, if it waits for the next attempt. */
  tryNow() {
    if (this.#state.phase === 'waiting') this.#try(this.#usual)
  }

  /**
   * @param {string} filter
   * @param {0 | 1 | 2} qos
   * @returns {Promise<number>} the granted QoS; rejects when the broker refuses
   */
  subscribe(filter, qos) {
    return new Promise((resolve, reject) => {
      this.#connectedClient().subscribe(filter, { qos }, (error, _subscriptions, answer) => {
        const code = answer?.granted?.[0]
        if (code !== undefined && code >= 0x80) {
          reject(new Error(explainRefusal('subscription', code, answer?.properties?.reasonString)))
        } else if (error) reject(error)
        else resolve(code ?? qos)
      })
    })
  }

  /**
   * @param {string} filter
   * @returns {Promise<void>}
   */
  unsubscribe(filter) {
    return new Promise(resolve => this.#connectedClient().unsubscribe(filter, () => resolve()))
  }

  /**
   * @param {Outgoing} outgoing
   * @returns {Promise<Acknowledgement>} at QoS 0, which has no acknowledgement, when it was handed to the socket; rejects when the
   *   broker refuses the message
   */
  publish({ topic, payload, qos, retain, properties }) {
    return new Promise((resolve, reject) => {
      const client = this.#connectedClient()
      const { hasProperties } = this
      const lose = () => {
        reject(new Error('The connection ended before the acknowledgement: the message may have arrived, or not.'))
      }
      this.#unacknowledged.add(lose)
      const options = { qos, retain, ...(hasProperties && properties && { properties }) }
      client.publish(topic, payload, options, (error, answer) => {
        this.#unacknowledged.delete(lose)
        if (typeof error?.code === 'number') {
          reject(new Error(explainRefusal('message', error.code, answer?.properties?.reasonString)))
        } else if (error) lose()
        else {
          const hasSubscribers = answer?.messageId === undefined || !this.#unmatched.delete(answer.messageId)
          resolve({ isPermission: hasProperties && qos > 0, hasSubscribers })
        }
      })
    })
  }

  #connectedClient() {
    if (this.#client === undefined || !this.connected) throw new Error('Not connected: nothing was sent.')
    return this.#client
  }

  /** @param {number} version */
  #try(version) {
    const settings = this.#settings
    if (settings === undefined) return
    clearTimeout(this.#timer)
    this.#version = version
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
    const { protocolVersion, protocolId } = VERSIONS[this.#version] ?? VERSIONS[NEWEST]
    const client = mqtt.connect(url, {
      ...{ protocolVersion, protocolId, clientId: settings.clientId, clean: true, keepalive: KEEP_ALIVE_S },
      connectTimeout: CONNECT_TIMEOUT_S * 1_000,
      reconnectPeriod: 0,
      resubscribe: false,
      // The other timers run in a worker made of a blob, which the content policy of the pages forbids.
      timerVariant: 'native',
      ...(settings.userName === '' ? {} : { username: settings.userName, password: settings.password }),
    })
    this.#client = client
    /** @type {string | undefined} */
    let reasonString
    /** @type {Reason | undefined} */
    let farewell
    client
      .on('packetreceive', ({ cmd, messageId, reasonCode, properties }) => {
        if (cmd === 'connack') reasonString = properties?.reasonString
        else if (messageId !== undefined && reasonCode === NO_MATCHING_SUBSCRIBERS && /^pub(ack|rec)$/.test(cmd)) {
          this.#unmatched.add(messageId)
        }
      })
      .on('connect', () => this.#opened(client))
      .on('message', (topic, bytes, packet) => this.#arrived(topic, bytes, packet))
      .on('disconnect', packet => {
        farewell = explainDisconnect(packet)
      })
      .on('error', error => {
        const reason = explainError(error, reasonString)
        if (isVersionRefused(error.code) && reason !== undefined) this.#refused(client, reason)
        else if (reason !== undefined) this.#ended(client, reason)
      })
      .on('close', () => this.#ended(client, farewell))
  }

  /** @param {mqtt.Client} client */
  #opened(client) {
    if (client !== this.#client) return
    this.#loss = undefined
    const { name, protocolVersion } = VERSIONS[this.#version] ?? VERSIONS[NEWEST]
    this.#setState({ phase: 'connected', since: Date.now(), version: name, hasProperties: protocolVersion === 5 })
  }

  /**
   * @param {string} topic
   * @param {Uint8Array} bytes
   * @param {mqtt.PublishPacket} packet
   */
  #arrived(topic, bytes, { qos, retain, dup, properties }) {
    this.#handlers.onMessage({ topic, bytes, qos, retained: retain, duplicate: dup, ...(properties && { properties }) })
  }

  /**
   * The broker does not speak this version.
   *
   * @param {mqtt.Client} client
   * @param {Reason} reason
   */
  #refused(client, reason) {
    if (client !== this.#client) return
    if (this.#version === OLDEST) {
      this.#ended(client, reason)
      return
    }
    this.#abandon()
    this.#usual = this.#version + 1
    this.#try(this.#usual)
  }

  /**
   * @param {mqtt.Client} client
   * @param {Reason | undefined} known left out if only the socket has the reason
   */
  #ended(client, known) {
    if (client !== this.#client) return
    const before = this.#state
    const record = this.#latestSocket()
    this.#abandon()
    const older = before.phase === 'connecting' && known === undefined ? this.#olderVersion(record) : undefined
    if (older !== undefined) {
      this.#try(older)
      return
    }
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

  /**
   * The version to try next, after a try without an answer to CONNECT: some brokers close the connection of a newer version, and an endpoint may take only
   * the subprotocol of MQTT 3.1.
   *
   * @param {import('./socket-recorder.js').SocketRecord | undefined} record
   * @returns {number | undefined} undefined for none
   */
  #olderVersion(record) {
    if (record?.opened) return this.#version === NEWEST ? NEWEST + 1 : undefined
    return this.#version < OLDEST ? OLDEST : undefined
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
    // Without force, it waits for acknowledgements before it says DISCONNECT.
    client?.end(!client.connected || this.#unacknowledged.size > 0)
    // A socket that is still connecting would open later.
    const socket = this.#latestSocket()?.socket
    if (socket?.readyState === WebSocket.CONNECTING) socket.close()
    for (const lose of this.#unacknowledged) lose()
    this.#unacknowledged.clear()
    this.#unmatched.clear()
  }

  /** @param {ConnectionState} state */
  #setState(state) {
    this.#state = state
    this.#handlers.onState(state)
  }
}
