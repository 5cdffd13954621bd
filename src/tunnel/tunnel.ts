import { Socket } from 'node:net'
import type { Writable } from 'node:stream'
import { explainConnectError, silenceHint } from '../base/connect-errors.js'
import type { ConnectionLog } from '../base/connection-log.js'
import { type ErrorReason, GatewayError } from '../base/errors.js'
import type { Metrics, Traffic } from '../base/metrics.js'
import { type BrokerStream, isDirectReadable } from '../broker/broker.js'
import { encodeDisconnectWithin } from '../mqtt/server-packets.js'
import type { Client, ClientListener } from './client.js'
import { type ConnackFacts, ConnackInspector } from './connack-inspector.js'
import { type ConnectFacts, ConnectInspector } from './connect-inspector.js'

/** Options of a tunnel. Times in milliseconds, sizes in bytes. */
export interface TunnelOptions {
  /** Requires an MQTT CONNECT as the first packet, and logs its client. */
  readonly inspectConnect: boolean
  readonly connectTimeout: number
  readonly connectSize: number
  /** Client ids that an inspected CONNECT must not have. */
  readonly reservedClientIds?: ReadonlySet<string> | undefined
  /** Time without activity of the client until it is pinged; `off` for never. */
  readonly pingInterval: number | 'off'
  /** Time from the first side's end to the second's. */
  readonly closeTimeout: number
}

export interface TunnelParts {
  readonly client: Client
  readonly broker: BrokerStream
  /** The broker's address, for the log. */
  readonly brokerName: string
  readonly options: TunnelOptions
  /** The connection's counters. */
  readonly traffic: Traffic
  readonly metrics: Metrics
  /** From `Metrics.trackConnection`. */
  readonly setState: ReturnType<Metrics['trackConnection']>
  /** The connection's own: the tunnel adds bindings. */
  readonly log: ConnectionLog
  /** Called once, when the broker has accepted an inspected CONNECT. */
  readonly onConnected?: ((facts: ConnectFacts) => void) | undefined
  /** Called once, when the end starts. */
  readonly onEnding?: ((reason: ErrorReason) => void) | undefined
  /** Called once, when both sides are closed and no timer is left. */
  readonly onEnded: () => void
}

/** The reasons with which a client leaves by itself. */
const clientReasons: ReadonlySet<ErrorReason> = new Set(['client-closed', 'client-gone', 'client-reset'])

/** CONNACK "identifier rejected": return code 2 (MQTT 3.1.1 §3.2.2.3), and reason code 0x85 without properties (MQTT 5 §3.2.2.2). */
const identifierRejected = Buffer.from([0x20, 2, 0, 2])
const identifierRejected5 = Buffer.from([0x20, 3, 0, 0x85, 0])

/** Milliseconds without bytes from the broker after which its last packet is complete, and how often they are awaited. */
const [quietTime, maxQuietChecks] = [200, 10]

/** Unanswered pings after which the connection is dead. */
const maxUnansweredPings = 2

/**
 * Carries bytes between a client and its broker, unchanged, until both sides have ended.
 *
 * Each direction ends by itself: bytes that one side sent before its end are delivered, then the other side is ended. The first event that
 * ends a side is the reason of the tunnel's end; both sides are closed within `closeTimeout` of it.
 */
export class Tunnel implements ClientListener {
  readonly #parts: TunnelParts
  readonly #client: Client
  readonly #broker: BrokerStream
  readonly #traffic: Traffic
  readonly #startedAt = performance.now()
  readonly #log: ConnectionLog
  #inspector: ConnectInspector | undefined
  #connectTimer: NodeJS.Timeout | undefined
  #pingTimer: NodeJS.Timeout | undefined
  #closeTimer: NodeJS.Timeout | undefined
  #quietTimer: NodeJS.Timeout | undefined
  /** The first reason to end. */
  #endReason: GatewayError | undefined
  /** Whether further bytes of the client are dropped. */
  #dropsClientBytes = false
  /** Inspects or drops the broker's bytes; `undefined` while they pass, which is then all that is checked for each chunk. */
  #brokerFilter: ConnackInspector | 'drop' | undefined
  /** The client's CONNECT, if it is inspected. */
  #connect: ConnectFacts | undefined
  #openSides = 2
  /** Whether the client's last bytes were a DISCONNECT. */
  #hasDisconnected = false

  /** Starts at once. The tunnel owns both sides from now on. */
  constructor(parts: TunnelParts) {
    this.#parts = parts
    this.#client = parts.client
    this.#broker = parts.broker
    this.#traffic = parts.traffic
    this.#log = parts.log
    parts.setState('open')
    if (parts.options.inspectConnect) this.#expectConnect()
    if (parts.options.pingInterval !== 'off' && parts.client.ping) this.#startPinging(parts.options.pingInterval)
    this.#client.start(this)
    this.#watchBroker()
  }

  /** Bytes buffered for both sides. */
  get bufferedBytes(): number {
    const inspected = this.#inspector?.bufferedBytes ?? 0
    return inspected + this.#client.bufferedBytes + this.#broker.readableLength + this.#broker.writableLength
  }

  /** Ends the tunnel: the client gets the reason, the broker the end of the stream. */
  end(reason: GatewayError): void {
    const isFirst = this.#endReason === undefined
    this.#startEnd(reason)
    if (isFirst && this.#broker.endFor?.(reason)) {
      this.#dropClientBytes()
      return
    }
    this.#endClient()
    this.#dropClientBytes()
    this.#broker.end()
  }

  /**
   * Ends the tunnel as `end`; a connected client of MQTT 5 gets DISCONNECT also where the broker is another one.
   *
   * Packets from the broker are not parsed, so this waits until it has sent nothing for a while, for two seconds at most: then its last packet is
   * complete. If it keeps sending, the connection ends without DISCONNECT.
   */
  disconnect(reason: GatewayError): void {
    const { protocolVersion, maximumPacketSize } = this.#connect ?? {}
    if (this.#quietTimer) return
    if (protocolVersion !== 5 || this.#broker.endFor || this.#endReason) {
      this.end(reason)
      return
    }
    const packet = encodeDisconnectWithin(maximumPacketSize, reason.mqttReason, reason.text)
    let [checks, bytes] = [0, this.#traffic.bytesOut]
    const check = (): void => {
      if (this.#endReason) return
      const isQuiet = this.#traffic.bytesOut === bytes && this.#broker.readableLength === 0 && !this.#broker.isPaused()
      if (!isQuiet && ++checks < maxQuietChecks) {
        bytes = this.#traffic.bytesOut
        this.#quietTimer?.refresh()
        return
      }
      if (isQuiet) this.#client.write(packet)
      this.end(reason)
    }
    // What arrived while the event loop was busy is read first.
    this.#quietTimer = setTimeout(() => setImmediate(check), quietTime)
  }

  /** Closes both sides at once, with everything that is buffered. */
  destroy(reason: GatewayError): void {
    this.#startEnd(reason)
    this.#client.destroy()
    this.#broker.destroy()
  }

  #watchBroker(): void {
    const broker = this.#broker
    if (isDirectReadable(broker)) broker.readDirectly(this.#onBrokerData)
    else broker.on('data', this.#onBrokerData)
    broker.on('drain', () => this.#client.resume())
    broker.on('end', () => this.#onBrokerEnd('broker-closed', broker.closeReason))
    broker.on('error', error => this.#startEnd(error instanceof GatewayError ? error : this.#brokerLost(error)))
    broker.on('close', () => this.#onBrokerClose())
    // The broker may have closed it before the tunnel started.
    if (broker.closed) this.#onBrokerClose()
  }

  clientSent(chunk: Buffer): boolean {
    if (this.#dropsClientBytes) return true
    this.#traffic.bytesIn += chunk.length
    const bytes = this.#inspector ? this.#inspect(this.#inspector, chunk) : chunk
    if (!bytes) return false
    this.#hasDisconnected = endsWithDisconnect(bytes)
    if (isTlsRecordOfSeveral(bytes)) corkForThisTick(this.#broker)
    if (!this.#broker.write(bytes)) this.#client.pause()
    // The kernel has all of them. The built-in broker keeps parts of them.
    return this.#broker.writableLength === 0 && this.#broker instanceof Socket
  }

  clientDrained(): void {
    this.#broker.resume()
  }

  clientEnded(reason: GatewayError): void {
    const first = this.#startEnd(reason)
    this.#broker.end()
    // A client that only left still gets the broker's last bytes; one that broke the protocol gets the reason at once.
    if (!clientReasons.has(first.reason)) this.#endClient()
  }

  clientClosed(): void {
    if (!this.#endReason) this.#startEnd(new GatewayError('client-reset'))
    // A second `end()` would make an error with a stack trace, which costs a new connection 4 %.
    if (!this.#broker.writableEnded) this.#broker.end()
    this.#endClient()
    this.#onSideClosed()
  }

  readonly #onBrokerData = (chunk: Buffer): void => {
    if (this.#brokerFilter !== undefined && this.#isDropped(this.#brokerFilter, chunk)) return
    this.#traffic.bytesOut += chunk.length
    if (!this.#client.write(chunk)) this.#broker.pause()
  }

  #onBrokerEnd(reason: ErrorReason, closeReason?: GatewayError): void {
    this.#client.finish(this.#endReason ?? this.#startEnd(closeReason ?? this.#brokerEnded(reason)))
  }

  #brokerEnded(reason: ErrorReason): GatewayError {
    if (this.#hasDisconnected) return new GatewayError('client-disconnected')
    const detail = this.#explainSilence()
    return new GatewayError(reason, detail === undefined ? {} : { detail })
  }

  #onBrokerClose(): void {
    this.#onBrokerEnd('broker-lost')
    this.#dropClientBytes()
    this.#onSideClosed()
  }

  #brokerLost(error: Error): GatewayError {
    const detail = this.#explainSilence() ?? `${this.#parts.brokerName}: ${explainConnectError(error)}`
    return new GatewayError('broker-lost', { cause: error, detail })
  }

  /** The cause, for the log, of an end before the broker's first byte: a TLS broker ends a connection without TLS so. */
  #explainSilence(): string | undefined {
    const { brokerName } = this.#parts
    if (this.#traffic.bytesOut > 0 || !/mqtts?:/.test(brokerName)) return undefined
    return `${brokerName} sent nothing; ${silenceHint('encrypted' in this.#broker)}`
  }

  /** Sends the client the reason, after the bytes that are already written. */
  #endClient(): void {
    this.#brokerFilter = 'drop'
    this.#broker.resume()
    if (this.#endReason) this.#client.finish(this.#endReason)
  }

  /** Reads on, into nothing, so that the client's end is seen. */
  #dropClientBytes(): void {
    this.#dropsClientBytes = true
    this.#client.resume()
  }

  #expectConnect(): void {
    const { connectSize, connectTimeout } = this.#parts.options
    this.#inspector = new ConnectInspector(connectSize)
    this.#connectTimer = setTimeout(() => this.end(new GatewayError('connect-timeout')), connectTimeout)
  }

  #inspect(inspector: ConnectInspector, chunk: Buffer): Buffer | undefined {
    try {
      const bytes = inspector.push(chunk)
      if (!bytes) return undefined
      clearTimeout(this.#connectTimer)
      this.#inspector = undefined
      if (inspector.facts) this.#onConnect(inspector.facts)
      this.#log.info('connected')
      return bytes
    } catch (error) {
      this.end(GatewayError.from(error))
      return undefined
    }
  }

  /** @throws {GatewayError} `client-id-reserved` */
  #onConnect(facts: ConnectFacts): void {
    const { clientId, protocolVersion, username } = facts
    this.#log.setBindings({ clientId, protocolVersion, username })
    this.#refuseReservedClientId(facts)
    this.#connect = facts
    this.#brokerFilter ??= new ConnackInspector(protocolVersion === 5 && clientId === '')
  }

  #isDropped(filter: ConnackInspector | 'drop', chunk: Buffer): boolean {
    if (filter === 'drop') return true
    const connack = filter.push(chunk)
    if (connack) this.#onConnack(connack)
    return false
  }

  #onConnack({ isAccepted, assignedClientId }: ConnackFacts): void {
    this.#brokerFilter = undefined
    if (!isAccepted || this.#connect === undefined || this.#endReason) return
    if (assignedClientId !== undefined) this.#connect.clientId = assignedClientId
    this.#parts.onConnected?.(this.#connect)
  }

  /** @throws {GatewayError} `client-id-reserved`, after the CONNACK */
  #refuseReservedClientId({ clientId, protocolVersion }: ConnectFacts): void {
    if (clientId === undefined || !this.#parts.options.reservedClientIds?.has(clientId)) return
    this.#client.write(protocolVersion === 5 ? identifierRejected5 : identifierRejected)
    throw new GatewayError('client-id-reserved')
  }

  /** Pings after each `interval` without activity. A client that takes a long download is active, if it sends nothing. */
  #startPinging(interval: number): void {
    let lastActivity = 0
    let unanswered = 0
    this.#pingTimer = setInterval(() => {
      const activity = this.#client.activity ?? 0
      // A paused client is not read, because the broker is slow.
      if (activity !== lastActivity || this.#client.paused) {
        lastActivity = activity
        unanswered = 0
      } else if (unanswered === maxUnansweredPings) {
        this.end(new GatewayError('ping-timeout'))
      } else {
        unanswered++
        this.#client.ping?.()
      }
    }, interval)
  }

  /** Starts the end of the tunnel, which has `closeTimeout` from now on. Returns the first reason, which counts. */
  #startEnd(reason: GatewayError): GatewayError {
    if (this.#endReason) return this.#endReason
    this.#endReason = reason
    this.#parts.setState('closing')
    clearTimeout(this.#connectTimer)
    clearInterval(this.#pingTimer)
    clearTimeout(this.#quietTimer)
    this.#parts.onEnding?.(reason.reason)
    this.#closeTimer = setTimeout(() => this.#onCloseTimeout(), this.#parts.options.closeTimeout)
    return reason
  }

  /** Destroys the broker's side; the client has one more second to read the reason. */
  #onCloseTimeout(): void {
    this.#log.debug('closing timed out')
    this.#broker.destroy()
    this.#endClient()
    this.#closeTimer = setTimeout(() => this.#client.destroy(), Math.min(1000, this.#parts.options.closeTimeout))
  }

  #onSideClosed(): void {
    if (--this.#openSides > 0) return
    clearTimeout(this.#closeTimer)
    const error = this.#endReason ?? new GatewayError('internal-error')
    const { setState, metrics, onEnded } = this.#parts
    setState('ended')
    metrics.ended(error.reason)
    const seconds = Math.round(performance.now() - this.#startedAt) / 1000
    this.#log[error.level]({ ...error.logFields, seconds, ...this.#traffic }, error.detailedText)
    onEnded()
  }
}

/**
 * Whether bytes end like a DISCONNECT: without properties (MQTT 3.1.1 §3.14), or with reason code 0 or 4 and no properties (MQTT 5
 * §3.14.2.2). A payload may end so, too: only the reason in the log depends on it.
 */
function endsWithDisconnect(bytes: Buffer): boolean {
  const { length } = bytes
  const last = bytes[length - 1]
  if (last !== 0 && last !== 4) return false
  if (last === 0 && bytes[length - 2] === 0xe0) return true
  if (bytes[length - 3] === 0xe0 && bytes[length - 2] === 1) return true
  return last === 0 && bytes[length - 4] === 0xe0 && bytes[length - 3] === 2
}

/**
 * Whether further bytes probably follow in this tick: up to 64 KiB are read of a TLS connection at once, and each record of it, of at most
 * 16 KiB (RFC 8446 §5.1), comes by itself.
 */
function isTlsRecordOfSeveral({ length }: Buffer): boolean {
  return length >= 8 * 1024 && length <= 16 * 1024
}

/** Everything written in this tick leaves in one `writev`: a third less work for 1 KiB frames over TLS. */
function corkForThisTick(stream: Writable): void {
  if (stream.writableCorked > 0) return
  stream.cork()
  setImmediate(uncork, stream)
}

function uncork(stream: Writable): void {
  stream.uncork()
}
