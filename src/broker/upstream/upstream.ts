import { readFileSync } from 'node:fs'
import { isIP, Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { connect as connectTls, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls'
import { explainConnectError, messageOf } from '../../base/connect-errors.js'
import { codeOf } from '../../base/error-code.js'
import { GatewayError } from '../../base/errors.js'
import type { Logger } from '../../base/log.js'
import { StartError } from '../../base/start-error.js'
import type { UpstreamConfig } from '../../config/schema.js'
import type { Broker, BrokerStream, Peer } from '../broker.js'
import { type Address, AddressBook, parseAddress } from './addresses.js'
import { ConnectTimeout, connectErrorOf, type Failure, TlsHandshakeEnded } from './connect-failures.js'
import { proxyHeaderV1, proxyHeaderV2 } from './proxy-protocol.js'
import { ReadBuffer, UpstreamSocket } from './upstream-socket.js'

export type UpstreamOptions = Omit<UpstreamConfig, 'username' | 'password'>

/** Bytes read ahead of a slow client. */
const highWaterMark = 64 * 1024

/**
 * Delay before the next attempt where the backlog of a broker's Unix socket is full, at first and at most, in milliseconds.
 */
const [firstPause, maxPause] = [10, 500]

/** TCP keep-alive delay in milliseconds; MQTT's keep-alive is shorter. */
const keepAliveInitialDelay = 60_000

/**
 * A remote broker: over TCP, TLS or a Unix socket, at one or several addresses.
 *
 * Each connection tries the addresses in order, and divides `connectTimeout` among the remaining ones, so that an unresponsive one leaves time
 * for the others.
 *
 * @throws {StartError} when an address is malformed, or a TLS file cannot be read or used
 */
export function createUpstream(options: UpstreamOptions, log: Logger): Broker {
  const addresses = [options.url].flat().map(parseAddress)
  const secureContext = addresses.some(address => address.kind === 'tls') ? loadSecureContext(options) : undefined
  const book = new AddressBook(addresses, options.balance)
  const readBuffer = new ReadBuffer()
  const connections = new Set<Connection>()
  let closing = false

  async function connect(address: Address, peer: Peer, timeout: number): Promise<BrokerStream> {
    const connection = new Connection({ address, options, secureContext, readBuffer, peer })
    connections.add(connection)
    let countDown = ignore
    connection.onClosed = () => {
      connections.delete(connection)
      countDown()
    }
    const stream = await connection.open(timeout)
    countDown = book.connected(address)
    return stream
  }

  /** Tries the addresses in order, each with its share of the remaining time. */
  async function connectToAny(peer: Peer, deadline: number): Promise<BrokerStream | readonly Failure[]> {
    const failures: Failure[] = []
    const order = book.order()
    for (const [index, address] of order.entries()) {
      if (closing) throw new GatewayError('shutting-down')
      const timeout = Math.max(1, (deadline - performance.now()) / (order.length - index))
      try {
        return await connect(address, peer, timeout)
      } catch (error) {
        book.failed(address)
        failures.push({ address, error })
        log.debug({ broker: address.name, err: explainConnectError(error) }, 'failed to connect to a broker address')
      }
    }
    return failures
  }

  return {
    name: addresses.map(address => address.name).join(', '),

    async open(peer: Peer): Promise<BrokerStream> {
      const deadline = performance.now() + options.connectTimeout
      for (let pause = firstPause; ; pause = Math.min(2 * pause, maxPause)) {
        const opened = await connectToAny(peer, deadline)
        if (!isFailed(opened)) return opened
        if (!opened.some(isFull) || performance.now() + pause > deadline) throw connectErrorOf(opened)
        await wait(pause * (1 - Math.random() / 2))
        // The remaining time is too short for an attempt.
        if (performance.now() + firstPause > deadline) throw connectErrorOf(opened)
      }
    },

    async close(): Promise<void> {
      closing = true
      await Promise.all([...connections].map(connection => connection.close()))
    },
  }
}

/** Whether the connection was closed, other than by a TLS failure, which has a code of OpenSSL. */
function isEndOfStream(error: Error): boolean {
  return ['ECONNRESET', 'EPIPE'].includes(codeOf(error))
}

function isFailed(opened: BrokerStream | readonly Failure[]): opened is readonly Failure[] {
  return Array.isArray(opened)
}

/** Whether the listen backlog was full. */
function isFull({ error }: Failure): boolean {
  return codeOf(error) === 'EAGAIN'
}

interface ConnectionParts {
  readonly address: Address
  readonly options: UpstreamOptions
  readonly secureContext: SecureContext | undefined
  readonly readBuffer: ReadBuffer
  readonly peer: Peer
}

/** Half-open, so that one side's FIN passes through and the other side may still finish. */
const socketOptions = { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay, highWaterMark }

/**
 * One connection to one address, from the attempt to the end.
 */
class Connection {
  readonly #parts: ConnectionParts
  /** The kernel's socket, below TLS where there is any. */
  readonly #raw: Socket
  #secure: TLSSocket | undefined
  /** Called when the kernel's socket is closed. */
  onClosed: () => void = ignore
  /** Settles the attempt, once: with an error, or with success. */
  #settle: ((error?: Error | null) => void) | undefined

  constructor(parts: ConnectionParts) {
    this.#parts = parts
    const { address, readBuffer } = parts
    const target = address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }
    // TLS reads from the kernel itself.
    const socket = address.kind === 'tls' ? new Socket(socketOptions) : new UpstreamSocket(socketOptions, readBuffer)
    this.#raw = socket.connect(target)
    // Permanently: an error may follow the attempt, such as that of a failed write.
    this.#raw.on('error', error => (this.#secure ? this.#secure.destroy(error) : this.#settle?.(error)))
    this.#raw.on('close', () => {
      const text = 'it closed the connection at once'
      this.#settle?.(this.#secure ? new TlsHandshakeEnded(text) : new Error(text))
      this.onClosed()
    })
  }

  /** Resolves with the stream for MQTT; closes the socket where it rejects. */
  open(timeout: number): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle?.(this.#timeoutError(timeout)), timeout)
      this.#settle = error => {
        clearTimeout(timer)
        this.#settle = undefined
        if (!error) {
          resolve(this.#secure ?? this.#raw)
          return
        }
        this.#destroy()
        reject(error)
      }
      this.#raw.once('connect', () => this.#writeProxyHeader(error => this.#onPrepared(error)))
    })
  }

  /** @param timeout in milliseconds; rounded, so that the text is the same for every connection */
  #timeoutError(timeout: number): ConnectTimeout {
    const time = timeout < 1000 ? `${Math.round(timeout / 10) * 10} ms` : `${Math.round(timeout / 1000)} s`
    return new ConnectTimeout(`no answer within ${time}`, this.#secure !== undefined)
  }

  /** Aborts the attempt, or closes the connection; resolves when the socket is closed. */
  close(): Promise<void> {
    this.#settle?.(new GatewayError('shutting-down'))
    this.#destroy()
    return new Promise(resolve => {
      if (this.#raw.closed) resolve()
      else this.#raw.on('close', () => resolve())
    })
  }

  #destroy(): void {
    this.#secure?.destroy()
    this.#raw.destroy()
  }

  /** Waits for the write: where the broker has closed, the attempt fails. */
  #writeProxyHeader(done: (error?: Error | null) => void): void {
    const { options, peer } = this.#parts
    if (options.proxyProtocol === 'off') done()
    else this.#raw.write(options.proxyProtocol === 'v1' ? proxyHeaderV1(peer) : proxyHeaderV2(peer), done)
  }

  #onPrepared(error?: Error | null): void {
    const { address } = this.#parts
    if (error || address.kind !== 'tls') this.#settle?.(error)
    else this.#startTls(address.host)
  }

  #startTls(host: string): void {
    const { options, secureContext } = this.#parts
    const name = options.servername ?? host
    this.#secure = connectTls({
      socket: this.#raw,
      host: name,
      // RFC 6066 §3: an IP address is no server name.
      ...(isIP(name) ? {} : { servername: name }),
      ...(secureContext ? { secureContext } : {}),
    })
    this.#secure.on('error', error =>
      this.#settle?.(isEndOfStream(error) ? new TlsHandshakeEnded(error.message) : error),
    )
    this.#secure.once('secureConnect', () => this.#settle?.())
  }
}

function loadSecureContext({ ca, cert, key }: UpstreamOptions): SecureContext {
  const read = (option: string, file: string | undefined): { [name: string]: Buffer } => {
    if (file === undefined) return {}
    try {
      return { [option]: readFileSync(file) }
    } catch (error) {
      throw new StartError(`broker.${option}: cannot read ${file}: ${messageOf(error)}`, { cause: error })
    }
  }
  const files = { ...read('ca', ca), ...read('cert', cert), ...read('key', key ?? cert) }
  try {
    return createSecureContext(files)
  } catch (error) {
    const given = [ca, cert, key].filter(file => file !== undefined).join(', ')
    throw new StartError(`broker: ${given} cannot be used for TLS: ${messageOf(error)}`, { cause: error })
  }
}

function ignore(): void {}
