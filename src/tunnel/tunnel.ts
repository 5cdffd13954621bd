import type { Writable } from 'node:stream'
import { explainConnectError, silenceHint } from '../base/connect-errors.js'
import type { ConnectionLog } from '../base/connection-log.js'
import { type ErrorReason, GatewayError } from '../base/errors.js'
import type { Metrics, Traffic } from '../base/metrics.js'
import { type BrokerStream, isDirectReadable } from '../broker/broker.js'
import type { ReservedClientIds } from '../mqtt/reserved-client-ids.js'
import type { Client, ClientListener } from './client.js'
import { ConnectInspector } from './connect-inspector.js'
import type { ConnectFacts } from './connect-packet.js'

/** How a tunnel behaves. All times in milliseconds, sizes in bytes. */
export interface TunnelOptions {
  /** Insist on an MQTT CONNECT as the first packet, and log who it is. */
  readonly inspectConnect: boolean
  readonly connectTimeout: number
  readonly connectSize: number
  /** Refused in a CONNECT that is inspected. */
  readonly reservedClientIds?: ReservedClientIds | undefined
  /** Silence of the client after which it is pinged; `off` for never. */
  readonly pingInterval: number | 'off'
  /** From one side's end to the other's. */
  readonly closeTimeout: number
}

/** What a tunnel is made of. */
export interface TunnelParts {
  readonly client: Client
  /** The broker's side: a half-open-capable stream. */
  readonly broker: BrokerStream
  /** The broker's address, for the log. */
  readonly brokerName: string
  readonly options: TunnelOptions
  /** Where bytes are counted. */
  readonly traffic: Traffic
  readonly metrics: Metrics
  /** Where the connection's states are counted (see `Metrics.trackConnection`). */
  readonly setState: ReturnType<Metrics['trackConnection']>
  /** The connection's own; the tunnel adds to what it says about the connection. */
  readonly log: ConnectionLog
  /** Called once, when both streams are closed and no timer is left. */
  readonly onEnded: () => void
}

/** The endings in which the client left by itself. */
const departures: ReadonlySet<ErrorReason> = new Set(['client-closed', 'client-gone', 'client-reset'])

/** CONNACK "identifier rejected": return code 2 (MQTT 3.1.1 §3.2.2.3), and reason code 0x85 without properties (MQTT 5 §3.2.2.2). */
const identifierRejected = Buffer.from([0x20, 2, 0, 2])
const identifierRejected5 = Buffer.from([0x20, 3, 0, 0x85, 0])

/** Pings that may go unanswered before the connection counts as dead. */
const patience = 2

/**
 * Carries bytes between a client and its broker, unchanged, until both sides have ended.
 *
 * Each direction ends by itself: what one side sent before its end is delivered, then the other side is told. Whatever
 * happens first is why the tunnel ended; from then on everything has to be over within `closeTimeout`.
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
  /** Why it ended: whatever came first. */
  #ending: GatewayError | undefined
  /** Whatever the client still sends is dropped. */
  #upIsCut = false
  /** Whatever the broker still sends is dropped. */
  #downIsCut = false
  #openSides = 2
  /** Whether the last bytes of the client were a DISCONNECT. */
  #hasDisconnected = false

  /** Starts carrying at once. The tunnel owns both streams from now on. */
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

  /** What waits in the gateway's memory for this connection, in bytes. */
  get bufferedBytes(): number {
    const held = this.#inspector?.heldBytes ?? 0
    return held + this.#client.bufferedBytes + this.#broker.readableLength + this.#broker.writableLength
  }

  /** Ends the tunnel from the gateway's side: the client is told, the broker sees the end of the stream. */
  end(ending: GatewayError): void {
    this.#begin(ending)
    this.#cutDown()
    this.#cutUp()
  }

  /** Ends the tunnel at once, whatever is still on its way. */
  destroy(ending: GatewayError): void {
    this.#begin(ending)
    this.#client.destroy()
    this.#broker.destroy()
  }

  #watchBroker(): void {
    const broker = this.#broker
    if (isDirectReadable(broker)) broker.readDirectly(this.#onBrokerData)
    else broker.on('data', this.#onBrokerData)
    broker.on('drain', () => this.#client.resume())
    broker.on('end', () => this.#onBrokerEnd('broker-closed', broker.closeReason))
    broker.on('error', error => this.#begin(error instanceof GatewayError ? error : this.#brokerLost(error)))
    broker.on('close', () => this.#onBrokerClose())
    // It may have been lost while the client's handshake was answered.
    if (broker.closed) this.#onBrokerClose()
  }

  clientSent(chunk: Buffer): void {
    if (this.#upIsCut) return
    this.#traffic.bytesIn += chunk.length
    const bytes = this.#inspector ? this.#inspect(this.#inspector, chunk) : chunk
    if (!bytes) return
    this.#hasDisconnected = endsWithDisconnect(bytes)
    if (isOneOfSeveral(bytes)) corkForThisTurn(this.#broker)
    if (!this.#broker.write(bytes)) this.#client.pause()
  }

  clientDrained(): void {
    this.#broker.resume()
  }

  clientEnded(ending: GatewayError): void {
    this.#begin(ending)
    this.#broker.end()
    // One that broke the rules is told so at once; one that just left still gets what the broker has for it.
    if (this.#ending && !departures.has(this.#ending.reason)) this.#cutDown()
  }

  clientClosed(): void {
    this.#beginFor('client-reset')
    // Ended twice, a stream makes an error with a stack, which was 4 % of what a new connection costs.
    if (!this.#broker.writableEnded) this.#broker.end()
    this.#cutDown()
    this.#onSideClosed()
  }

  readonly #onBrokerData = (chunk: Buffer): void => {
    if (this.#downIsCut) return
    this.#traffic.bytesOut += chunk.length
    if (!this.#client.write(chunk)) this.#broker.pause()
  }

  #onBrokerEnd(reason: ErrorReason, ending?: GatewayError): void {
    // The first ending is the one that the client is told.
    this.#client.finish(ending ? this.#begin(ending) : this.#beginForBroker(reason))
  }

  #beginForBroker(reason: ErrorReason): GatewayError {
    if (this.#ending) return this.#ending
    if (this.#hasDisconnected) return this.#begin(new GatewayError('client-disconnected'))
    const detail = this.#silence()
    return this.#begin(new GatewayError(reason, detail === undefined ? {} : { detail }))
  }

  #onBrokerClose(): void {
    this.#onBrokerEnd('broker-lost')
    this.#stopReadingClient()
    this.#onSideClosed()
  }

  #brokerLost(error: Error): GatewayError {
    const { brokerName } = this.#parts
    const silence = this.#silence()
    return new GatewayError('broker-lost', {
      cause: error,
      detail: silence ?? `${brokerName}: ${explainConnectError(error)}`,
    })
  }

  /** The cause, for the log, of an end before the broker's first byte: a broker with TLS ends connections without it so. */
  #silence(): string | undefined {
    const { brokerName } = this.#parts
    if (this.#traffic.bytesOut > 0 || !/mqtts?:/.test(brokerName)) return undefined
    return `${brokerName} sent nothing; ${silenceHint('encrypted' in this.#broker)}`
  }

  /** Nothing more goes from the broker to the client but what is already written, and the reason. */
  #cutDown(): void {
    this.#downIsCut = true
    this.#broker.resume()
    if (this.#ending) this.#client.finish(this.#ending)
  }

  /** Nothing more goes from the client to the broker but what is already written. */
  #cutUp(): void {
    this.#stopReadingClient()
    this.#broker.end()
  }

  /** Whatever the client still sends is read and dropped, so that its end is seen. */
  #stopReadingClient(): void {
    this.#upIsCut = true
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
      this.#log.setBindings({ ...inspector.facts })
      if (inspector.facts) this.#requireFree(inspector.facts)
      this.#log.info('connected')
      return bytes
    } catch (error) {
      this.end(GatewayError.from(error))
      return undefined
    }
  }

  /** @throws {Ending} `client-id-reserved`, when CONNACK has said the same. */
  #requireFree({ clientId, protocolVersion }: ConnectFacts): void {
    if (clientId === undefined || !this.#parts.options.reservedClientIds?.has(clientId)) return
    this.#client.write(protocolVersion === 5 ? identifierRejected5 : identifierRejected)
    throw new GatewayError('client-id-reserved')
  }

  /** Pings after each `interval` without a sign of life. One that takes a long download lives, if it says nothing. */
  #startPinging(interval: number): void {
    let seen = 0
    let unanswered = 0
    this.#pingTimer = setInterval(() => {
      const signs = this.#client.signsOfLife ?? 0
      // While the broker is slow the client is not read: the silence is ours.
      if (signs !== seen || this.#client.paused) {
        seen = signs
        unanswered = 0
      } else if (unanswered === patience) {
        this.end(new GatewayError('ping-timeout'))
      } else {
        unanswered++
        this.#client.ping?.()
      }
    }, interval)
  }

  /** The first ending is the one that counts, and is given back; from then on, the rest has `closeTimeout` to follow. */
  #begin(ending: GatewayError): GatewayError {
    if (this.#ending) return this.#ending
    this.#ending = ending
    this.#parts.setState('closing')
    clearTimeout(this.#connectTimer)
    clearInterval(this.#pingTimer)
    this.#closeTimer = setTimeout(() => this.#giveUp(), this.#parts.options.closeTimeout)
    return ending
  }

  /** As `#begin`, with an ending that is not made where another one counts, as most do not. */
  #beginFor(reason: ErrorReason): GatewayError {
    return this.#ending ?? this.#begin(new GatewayError(reason))
  }

  /** A side did not end in time: the broker is let go, the client gets one more moment to take its ending. */
  #giveUp(): void {
    this.#log.debug('a side did not finish closing in time')
    this.#broker.destroy()
    this.#cutDown()
    this.#closeTimer = setTimeout(() => this.#client.destroy(), Math.min(1000, this.#parts.options.closeTimeout))
  }

  #onSideClosed(): void {
    if (--this.#openSides > 0) return
    clearTimeout(this.#closeTimer)
    const ending = this.#ending ?? new GatewayError('internal-error')
    const { setState, metrics, onEnded } = this.#parts
    setState('ended')
    metrics.ended(ending.reason)
    const facts = { ...ending.logFields, seconds: seconds(performance.now() - this.#startedAt), ...this.#traffic }
    this.#log[ending.level](facts, ending.detailedText)
    onEnded()
  }
}

/**
 * Whether bytes end as a DISCONNECT does, with which an MQTT client leaves: without properties (MQTT 3.1.1 §3.14), or with a reason code
 * of 0 or 4 and no properties (MQTT 5 §3.14.2.2). A payload may end so as well: only the reason in the log depends on it.
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
 * Whether more will come in this turn of the event loop: of what is read of a TLS connection at once, up to 64 KiB,
 * each record comes by itself, with 16 KiB at most (RFC 8446 §5.1).
 */
function isOneOfSeveral({ length }: Buffer): boolean {
  return length >= 8 * 1024 && length <= 16 * 1024
}

/** What is written until the end of the turn leaves in one `writev`: a third less work for 1 KiB frames over TLS. */
function corkForThisTurn(stream: Writable): void {
  if (stream.writableCorked > 0) return
  stream.cork()
  setImmediate(uncork, stream)
}

function uncork(stream: Writable): void {
  stream.uncork()
}

function seconds(milliseconds: number): number {
  return Math.round(milliseconds) / 1000
}
