import type { Server as HttpServer, IncomingMessage } from 'node:http'
import type { Http2SecureServer, Http2Server, Http2ServerRequest } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { Server as TlsServer } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import type { SliceMonitor } from '../base/slice-monitor.js'
import { isInputIgnored } from '../http/ignore-input.js'
import { owesResponse, trackResponse } from '../http/last-response.js'
import { pathOf } from '../http/request-target.js'
import type { HttpResponse, UnreadResponses } from '../http/unread-responses.js'
import type { Listener } from './listener.js'
import type { StreamQueue } from './stream-queue.js'
import { type WebApp, wantsWebSocket } from './web-servers.js'

/** A web server of another program, of `node:http`, `node:https` or `node:http2`. */
export type ProgramServer = HttpServer | Http2Server | Http2SecureServer

export interface AttachOptions {
  readonly app: WebApp
  /** Handles upgrades to WebSocket. */
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  /** Whether the app has a route for a path, or an endpoint of WebSockets is there. */
  ownsRequest(path: string): boolean
  /** Whether an endpoint of WebSockets is at a path. */
  ownsUpgrade(path: string): boolean
  /** Bounds the unread bytes of complete responses. */
  readonly unreadResponses: UnreadResponses
  /** New requests of HTTP/2. */
  readonly streams: StreamQueue
  /** Told of each request. */
  readonly slices?: SliceMonitor | undefined
}

type Request = IncomingMessage | Http2ServerRequest

/**
 * Answers the gateway's own requests and upgrades on a server of another program, and leaves all others to the listeners of that program. Those see nothing of
 * the gateway's: a second response, or `ws` with a path of its own, would end the connection. So its events are filtered before they are emitted, which works
 * whichever side adds its listeners first.
 *
 * `close` resolves when its responses have ended. Until `detach`, requests are still taken, and refused by the app: a 404 of the program would stop the retries
 * of clients.
 */
export class AttachedServer implements Listener {
  readonly addresses = []
  readonly #server: ProgramServer
  readonly #options: AttachOptions
  /** Connections and streams of HTTP/2 with a response of the gateway. */
  readonly #busy = new Set<Duplex>()
  /** Connections whose end is watched. */
  readonly #watched = new WeakSet<Duplex>()
  readonly #emit: ProgramServer['emit']
  #isAttached = true
  #onIdle: (() => void) | undefined
  #closed: Promise<void> | undefined

  constructor(server: ProgramServer, options: AttachOptions) {
    this.#server = server
    this.#options = options
    this.#emit = server.emit
    // Without a listener, Node handles upgrades as plain requests.
    server.on('upgrade', keepUpgrades)
    server.emit = this.#filter
  }

  close(): Promise<void> {
    this.#closed ??= new Promise(resolve => {
      this.#onIdle = resolve
      this.#checkIdle()
    })
    return this.#closed
  }

  destroyConnections(): void {
    for (const connection of this.#busy) connection.destroy()
  }

  /** Leaves all further events to the program. Idempotent. */
  detach(): void {
    if (!this.#isAttached) return
    this.#isAttached = false
    this.#server.off('upgrade', keepUpgrades)
    // Somebody else may have filtered the events, too; their function calls this one.
    if (this.#server.emit === this.#filter) this.#server.emit = this.#emit
  }

  readonly #filter = (event: string | symbol, ...args: unknown[]): boolean => {
    if (this.#isAttached && this.#take(event, args)) return true
    return Reflect.apply(this.#emit, this.#server, [event, ...args])
  }

  /** @returns whether the event is the gateway's */
  #take(event: string | symbol, args: readonly unknown[]): boolean {
    // The arguments that Node documents for these events.
    if (event === 'request') return this.#takeRequest(...(args as [Request, HttpResponse]))
    if (event === 'upgrade') return this.#takeUpgrade(...(args as [IncomingMessage, Duplex, Buffer]))
    if (event !== 'checkContinue') return false
    const [request, response] = args as [Request, HttpResponse]
    if (!this.#options.ownsRequest(pathOf(request.url))) return false
    response.writeContinue()
    return this.#takeRequest(request, response)
  }

  #takeRequest(request: Request, response: HttpResponse): boolean {
    const { app, slices, streams, unreadResponses } = this.#options
    if (!('stream' in response)) {
      // The connection is an event stream of the gateway already.
      if (isInputIgnored(request.socket)) return true
      trackResponse(response)
    }
    if (!this.#options.ownsRequest(pathOf(request.url))) return false
    const handle = (): void => {
      slices?.begin('http request', request)
      this.#hold(response)
      unreadResponses.add(response)
      app.routing(request, response)
    }
    if ('stream' in response) {
      const { stream } = response
      // Without this, Node would keep a stream with a pending write until its connection ends.
      stream.once('aborted', () => stream.destroy())
      streams.add(stream, handle)
    } else if (response.socket !== null) handle()
    // A pipelined request: once the responses before it are sent. Node is still assigning the connection then.
    else response.once('socket', (socket: Socket) => process.nextTick(() => socket.writable && handle()))
    return true
  }

  #takeUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean {
    const path = pathOf(request.url)
    if (isInputIgnored(request.socket)) {
      socket.destroy()
      return true
    }
    if (this.#options.ownsUpgrade(path) && wantsWebSocket(request)) {
      // Pipelined behind a request without a response: none is possible.
      if (owesResponse(request.socket)) socket.destroy()
      else this.#options.onUpgrade(request, socket, head)
      return true
    }
    const hasOthers = this.#server.listeners('upgrade').some(listener => listener !== keepUpgrades)
    if (hasOthers && !this.#options.ownsRequest(path)) return false
    if (!readsBodies) this.#readAgain(request, socket, head)
    else {
      collectBody(request).then(
        body => this.#readAgain(request, socket, Buffer.concat([body, head])),
        () => socket.destroy(),
      )
    }
    return true
  }

  /**
   * Gives a connection back to the server, with its request as it is without `Upgrade`: curl and Java's client ask for `h2c`, and no listener of
   * upgrades is there for it. Node documents that connections may be emitted to its servers.
   */
  #readAgain({ method, url, httpVersion, rawHeaders }: IncomingMessage, socket: Duplex, head: Buffer): void {
    let text = `${method} ${url} HTTP/${httpVersion}\r\n`
    for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
      const [name = '', value = ''] = rawHeaders.slice(at, at + 2)
      const kept = name.toLowerCase() === 'connection' ? withoutUpgrade(value) : value
      const isDropped = name.toLowerCase() === 'upgrade' || (kept === '' && value !== '')
      if (!isDropped) text += `${name}: ${kept}\r\n`
    }
    socket.unshift(Buffer.concat([Buffer.from(`${text}\r\n`, 'latin1'), head]))
    this.#server.emit(this.#server instanceof TlsServer ? 'secureConnection' : 'connection', socket as Socket)
  }

  /** Counts a response until it has ended; an event stream over HTTP/1.1 until its connection has. */
  #hold(response: HttpResponse): void {
    const connection: Duplex = 'stream' in response ? response.stream : response.req.socket
    this.#busy.add(connection)
    const release = (): void => {
      this.#busy.delete(connection)
      this.#checkIdle()
    }
    response.once('close', () => {
      if ('stream' in response || !isInputIgnored(response.req.socket)) release()
    })
    if (this.#watched.has(connection)) return
    this.#watched.add(connection)
    connection.once('close', release)
  }

  #checkIdle(): void {
    if (this.#busy.size === 0) this.#onIdle?.()
  }
}

/** Node.js 26 reads the body of a request for an upgrade; before, `head` begins with it. */
const readsBodies = Number.parseInt(process.versions.node, 10) >= 26

/** Bytes of the body of a request for another upgrade, where Node reads it: browsers send none, curl and Java's client small ones. */
const maxUpgradeBody = 1024 ** 2

/** Milliseconds that it may take. */
const upgradeBodyTimeout = 10_000

/** Returns a body as it is sent: in one chunk if its length was not announced. Rejects if it is too large, too slow or broken off. */
async function collectBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  const timer = setTimeout(() => request.destroy(), upgradeBodyTimeout)
  try {
    for await (const chunk of request) {
      size += chunk.length
      if (size > maxUpgradeBody) throw new Error('the body is too large')
      chunks.push(chunk)
    }
  } finally {
    clearTimeout(timer)
  }
  if (request.headers['transfer-encoding'] === undefined) return Buffer.concat(chunks)
  const last = Buffer.from('0\r\n\r\n')
  if (size === 0) return last
  return Buffer.concat([Buffer.from(`${size.toString(16)}\r\n`), ...chunks, Buffer.from('\r\n'), last])
}

/**
 * Collects the routes of an app; to be called before they are added.
 *
 * @returns whether one of them is at a path, for any method. Routes with constraints are not counted
 */
export function collectRoutes(app: FastifyInstance): (path: string) => boolean {
  const fixed = new Set<string>()
  const patterns: RegExp[] = []
  app.addHook('onRoute', ({ url, constraints = {} }) => {
    if (Object.keys(constraints).length > 0) return
    if (!/[:*]/.test(url)) fixed.add(url)
    else
      patterns.push(
        new RegExp(
          `^${url
            .replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&')
            .replaceAll(/:\w+/g, '[^/]+')
            .replaceAll('*', '.*')}$`,
        ),
      )
  })
  return path => fixed.has(path) || patterns.some(pattern => pattern.test(path))
}

/** Removes what belongs to an upgrade from `Connection` (RFC 9110 §7.6.1). */
function withoutUpgrade(connection: string): string {
  const names = connection.split(',').map(name => name.trim())
  return names.filter(name => !/^(upgrade|http2-settings)$/i.test(name)).join(', ')
}

/** Stays on a server for as long as a gateway is attached; the same function for each of several gateways, so that they do not count each other. */
function keepUpgrades(): void {}
