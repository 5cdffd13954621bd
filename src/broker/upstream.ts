import { setMaxListeners } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls'
import type { UpstreamConfig } from '../config/schema.js'
import { Ending } from '../endings.js'
import type { Logger } from '../log.js'
import { StartError } from '../start-error.js'
import { type Address, AddressBook, parseAddress } from './addresses.js'
import type { Broker, BrokerStream, Peer } from './broker.js'
import { endingOf, type Failure, messageOf, Silence } from './connect-failures.js'
import { proxyHeaderV1, proxyHeaderV2 } from './proxy-protocol.js'
import { ReadBuffer, UpstreamSocket } from './upstream-socket.js'

/** What an upstream broker needs of the configuration; the probe's credentials are not among it. */
export type UpstreamOptions = Omit<UpstreamConfig, 'username' | 'password'>

/** How much of a broker's answer is buffered while the client reads slowly, in bytes. */
const highWaterMark = 64 * 1024

/** Dead peers are found by the kernel after this much silence, in milliseconds; MQTT's own keep-alive comes sooner. */
const keepAliveInitialDelay = 60_000

/**
 * A broker elsewhere: over TCP, TLS or a Unix socket, at one address or several.
 *
 * Each connection tries the addresses in turn and shares `connectTimeout` among those that are left, so that one that
 * is silent does not use up the others' time.
 *
 * @throws {StartError} when an address is malformed, or a file for TLS cannot be read or used
 */
export function createUpstream(options: UpstreamOptions, log: Logger): Broker {
  const addresses = [options.url].flat().map(parseAddress)
  const secureContext = addresses.some(address => address.kind === 'tls') ? loadSecureContext(options) : undefined
  const book = new AddressBook(addresses, options.balance)
  const sockets = new Set<Socket>()
  const readBuffer = new ReadBuffer()
  const closing = new AbortController()
  // One for each connection that is being opened; there is no number that would be a leak.
  setMaxListeners(0, closing.signal)

  const dial = async (address: Address, peer: Peer, timeout: number): Promise<Socket> => {
    const attempt = new Attempt(address, options, secureContext, peer, readBuffer)
    sockets.add(attempt.raw)
    attempt.raw.once('close', () => sockets.delete(attempt.raw))
    const socket = await attempt.connect(timeout, closing.signal)
    attempt.raw.once('close', book.connected(address))
    return socket
  }

  return {
    name: addresses.map(address => address.name).join(', '),

    async open(peer: Peer): Promise<BrokerStream> {
      const deadline = performance.now() + options.connectTimeout
      const failures: Failure[] = []
      const order = book.order()
      for (const [index, address] of order.entries()) {
        if (closing.signal.aborted) throw new Ending('shutting-down')
        const timeout = Math.max(1, (deadline - performance.now()) / (order.length - index))
        try {
          return await dial(address, peer, timeout)
        } catch (error) {
          book.failed(address)
          failures.push({ address, error })
          log.debug({ err: error, broker: address.name }, 'a broker address failed')
        }
      }
      throw endingOf(failures)
    },

    async close(): Promise<void> {
      closing.abort(new Ending('shutting-down'))
      await Promise.all([...sockets].map(closeSocket))
    },
  }
}

/** One attempt at one address. `raw` is the kernel's socket, below TLS where there is any. */
class Attempt {
  readonly raw: Socket
  readonly #address: Address
  readonly #options: UpstreamOptions
  readonly #secureContext: SecureContext | undefined
  readonly #peer: Peer

  constructor(
    address: Address,
    options: UpstreamOptions,
    secureContext: SecureContext | undefined,
    peer: Peer,
    readBuffer: ReadBuffer,
  ) {
    this.#address = address
    this.#options = options
    this.#secureContext = secureContext
    this.#peer = peer
    const target = address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port }
    // Half-open, so that one side's FIN passes through and the other side may still finish.
    const common = { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay, highWaterMark }
    // TLS reads from the kernel itself.
    this.raw =
      address.kind === 'tls'
        ? connect({ ...target, ...common })
        : new UpstreamSocket(common, readBuffer).connect({ ...target, ...common })
    // For good: an error may come when the one who listened for it has what it needs, such as that of a failed write.
    this.raw.on('error', ignore)
  }

  /** Resolves with the stream to speak MQTT on. Whatever goes wrong, the socket is gone. */
  connect(timeout: number, signal: AbortSignal): Promise<Socket> {
    return new Promise<Socket>((resolve, reject) => {
      let stream = this.raw
      const settle = (error?: Error | null): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', onAbort)
        this.raw.off('close', onClose)
        stream.off('error', settle)
        if (!error) {
          resolve(stream)
          return
        }
        stream.destroy()
        this.raw.destroy()
        reject(error)
      }
      const onAbort = (): void => settle(signal.reason)
      const onClose = (): void => settle(new Error('it closed the connection at once'))
      const timer = setTimeout(() => settle(new Silence(`no answer within ${Math.round(timeout)} ms`)), timeout)
      signal.addEventListener('abort', onAbort)
      this.raw.on('error', settle)
      this.raw.on('close', onClose)
      this.raw.once('connect', () =>
        this.#writeProxyHeader(error => {
          if (error || this.#address.kind !== 'tls') {
            settle(error)
            return
          }
          const secure = this.#startTls(this.#address.host)
          this.raw.off('error', settle)
          this.raw.on('error', error => secure.destroy(error))
          stream = secure
          secure.on('error', settle)
          secure.once('secureConnect', () => settle())
        }),
      )
    })
  }

  /** A broker that has closed already makes the write fail: an attempt that failed, and not a connection that was lost. */
  #writeProxyHeader(done: (error?: Error | null) => void): void {
    const version = this.#options.proxyProtocol
    if (version === 'off') done()
    else this.raw.write(version === 'v1' ? proxyHeaderV1(this.#peer) : proxyHeaderV2(this.#peer), done)
  }

  #startTls(host: string): TLSSocket {
    const name = this.#options.servername ?? host
    const secure = connectTls({
      socket: this.raw,
      host: name,
      // RFC 6066 §3: a literal address is no server name.
      ...(isIP(name) ? {} : { servername: name }),
      ...(this.#secureContext ? { secureContext: this.#secureContext } : {}),
    })
    return secure.on('error', ignore)
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

function closeSocket(socket: Socket): Promise<void> {
  return new Promise(resolve => {
    if (socket.closed) {
      resolve()
      return
    }
    socket.once('close', () => resolve())
    socket.destroy()
  })
}

function ignore(): void {}
