import type { Server, Socket } from 'node:net'
import { compileAddresses, normalizeAddress, unixAddress } from '../access/addresses.js'
import { type ProxiedConnection, parseProxyHeader } from './proxy-header.js'

export interface ProxiedConnectionsOptions {
  /** Peers that may send a header; connections of others are destroyed. */
  readonly trustedProxies: readonly string[]
  /** Milliseconds from the connection to the end of the header. */
  readonly timeout: number
}

/** Told of each connection that is destroyed. @param detail the cause */
type OnRefused = (detail: string, peer: string | undefined) => void

/** Connections that wait for their header; further ones are destroyed. A proxy sends it at once. */
const maxPending = 1024

/**
 * Reads the PROXY protocol header of each new connection, and gives its socket the addresses of the client, before a server gets the connection. Node.js
 * has no such option: the listeners of the server's `connection` event are called when the header has been read.
 */
export class ProxiedConnections {
  readonly #timeout: number
  #isTrusted: (address: string) => boolean
  readonly #pending = new Set<Socket>()
  /** Connections by the peer and port of the proxy. A TLS socket has these too, and no documented reference to its TCP socket. */
  readonly #open = new Map<string, ProxiedConnection>()

  /** @throws {TypeError} naming the first invalid entry of `trustedProxies` */
  constructor({ trustedProxies, timeout }: ProxiedConnectionsOptions) {
    this.#timeout = timeout
    this.#isTrusted = compileAddresses(trustedProxies)
  }

  /** @throws {TypeError} naming the first invalid entry of `trustedProxies` */
  configure({ trustedProxies }: Pick<ProxiedConnectionsOptions, 'trustedProxies'>): void {
    this.#isTrusted = compileAddresses(trustedProxies)
  }

  /** Delays the `connection` event for all listeners that the server has now. */
  watch(server: Server, onRefused: OnRefused): void {
    const listeners = server.listeners('connection')
    server.removeAllListeners('connection')
    server.on('connection', (socket: Socket) => {
      this.#read(socket, onRefused, () => {
        for (const listener of listeners) listener.call(server, socket)
      })
    })
  }

  /** Gives a TLS socket the addresses that its TCP socket has got. */
  readonly identify = (socket: Socket): void => {
    const connection = this.#open.get(keyOf(socket))
    if (connection) setAddresses(socket, connection)
  }

  /** Destroys the connections that wait for their header. */
  close(): void {
    for (const socket of this.#pending) socket.destroy()
  }

  #read(socket: Socket, onRefused: OnRefused, ready: () => void): void {
    const { remoteAddress } = socket
    const refuse = (detail: string): void => {
      onRefused(detail, remoteAddress)
      socket.destroy()
    }
    socket.on('error', ignore)
    const peer = remoteAddress === undefined ? unixAddress : normalizeAddress(remoteAddress)
    if (!this.#isTrusted(peer)) return refuse('trustedProxies does not contain the peer')
    if (this.#pending.size >= maxPending) return refuse('too many connections wait for their PROXY protocol header')
    const timer = setTimeout(() => refuse('the PROXY protocol header did not arrive in time'), this.#timeout)
    this.#pending.add(socket)
    const settle = (): void => {
      clearTimeout(timer)
      this.#pending.delete(socket)
      socket.off('readable', onReadable).off('end', onEnd).off('close', settle)
    }
    let bytes: Buffer = Buffer.alloc(0)
    const onReadable = (): void => {
      const chunk: Buffer | null = socket.read()
      if (chunk === null) return
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
      try {
        const header = parseProxyHeader(bytes)
        if (!header) return
        settle()
        if (header.connection) this.#proxied(socket, header.connection)
        if (bytes.length > header.size) socket.unshift(bytes.subarray(header.size))
      } catch (error) {
        refuse(error instanceof Error ? error.message : String(error))
        return
      }
      ready()
    }
    // The proxy has closed the connection without a header: a health check.
    const onEnd = (): void => {
      socket.destroy()
    }
    socket.on('readable', onReadable).on('end', onEnd).on('close', settle)
  }

  #proxied(socket: Socket, connection: ProxiedConnection): void {
    if (socket.remoteAddress !== undefined) {
      const key = keyOf(socket)
      this.#open.set(key, connection)
      socket.on('close', () => this.#open.delete(key))
    }
    setAddresses(socket, connection)
  }
}

function keyOf({ remoteAddress, remotePort, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localPort}`
}

/** Node.js reads the addresses by getters of the prototype. */
function setAddresses(socket: Socket, connection: ProxiedConnection): void {
  for (const [name, value] of Object.entries(connection))
    Object.defineProperty(socket, name, { value, enumerable: true })
}

/** The listeners of the server handle errors from then on; before, the socket has closed, and nothing is owed to its peer. */
function ignore(): void {}
