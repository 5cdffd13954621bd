import cluster from 'node:cluster'
import { once } from 'node:events'
import { chmod, lstat, unlink } from 'node:fs/promises'
import { type AddressInfo, createConnection, createServer as createNetServer, type Server, type Socket } from 'node:net'
import { hostname } from 'node:os'
import { formatHost } from '../access/addresses.js'
import type { SocketLimits } from '../access/socket-limits.js'
import { codeOf } from '../base/error-code.js'
import type { ErrorReason } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import type { TickBudget } from '../base/tick-budget.js'
import { bindFailure, type Purpose } from './bind-failure.js'
import type { InheritedSocket } from './inherited-sockets.js'
import type { ProxiedConnections } from './proxied-connections.js'

/** The address and the bounds of a listener. */
export interface ListenOptions {
  /** Names the flags in error messages. */
  readonly purpose: Purpose
  /** Addresses or names. Not used for a Unix socket. */
  readonly host: string | readonly string[]
  /** A port, 0 for any free one (the same for every host), or `unix:/path`. */
  readonly port: number | string
  /** File mode of a Unix socket. Default: 0660, so that a reverse proxy has access through the group. */
  readonly unixSocketMode?: number | undefined
  /** Sockets of one bound address, with pages, probes and refusals. */
  readonly maxConnections: number
  /** Sockets of one client address and of all, over all listeners. */
  readonly sockets?: SocketLimits
  /** Reads the PROXY protocol header that each connection must begin with; left out where connections have none. */
  readonly proxied?: ProxiedConnections | undefined
  /** Sockets of systemd: a port that one of them has is opened nowhere else. */
  readonly inherited?: readonly InheritedSocket[] | undefined
  /** Told of each accepted connection. */
  readonly tickBudget?: TickBudget
  readonly log: Logger
  readonly metrics: Metrics
}

/** A bound address: a TCP one, or the path of a Unix socket. */
export type BoundAddress = { readonly host: string; readonly port: number } | { readonly path: string }

/** A bound listener. */
export interface Listener {
  readonly addresses: readonly BoundAddress[]
  /** Applies another `ListenOptions.maxConnections`. Open connections stay, also beyond it. Left out for the server of another program. */
  setMaxConnections?(max: number): void
  /** Stops accepting; resolves when all connections have ended. Idempotent. */
  close(): Promise<void>
  /** Destroys all connections. */
  destroyConnections(): void
}

/**
 * Connections that wait to be accepted; the kernel has its own maximum (`net.core.somaxconn`). With Node's 511, it drops connections of a storm,
 * whose clients try again after 1, 3 and 7 s.
 */
const backlog = 4096

const defaultUnixSocketMode = 0o660

/** Bytes of `sun_path` in `struct sockaddr_un`, less the NUL at its end. */
const maxSocketPathBytes = process.platform === 'linux' ? 107 : 103

/** Milliseconds between two log lines about dropped connections. */
const dropLogInterval = 10_000

/**
 * Sockets that listen at each port, where several can (Linux, Node.js 22.12). libuv accepts one connection of each in an iteration of the event loop: with
 * one, 2000 clients that come back at once wait for 2000 iterations, and so does everybody behind a client that opens connections in a loop.
 */
const listeningSockets = canSharePorts() ? 8 : 1

/**
 * Binds one server per host, or one to a Unix socket.
 *
 * A socket file without a listener is from a killed process, and is replaced. Any other failure is an error, and no address stays
 * bound.
 *
 * @param createServer called for each socket that listens
 * @throws {StartError} with the address, the reason and a remedy
 */
export async function listen(createServer: () => Server, options: ListenOptions): Promise<Listener> {
  const bound: BoundServer[] = []
  try {
    const inherited = options.inherited?.filter(
      ({ purpose, port }) => purpose === options.purpose && port === options.port,
    )
    if (inherited !== undefined && inherited.length > 0) {
      for (const socket of inherited) bound.push(await bindInherited(createServer(), socket, options))
    } else if (typeof options.port === 'string') {
      bound.push(await bindPath(createServer(), options.port.slice('unix:'.length), options))
    } else {
      const hosts = typeof options.host === 'string' ? [options.host] : options.host
      let port = options.port
      for (const host of hosts) {
        // Without ipv6Only, `::` would take the port of `0.0.0.0` as well.
        const server = await bindPort(createServer, { host, port, ipv6Only: hosts.length > 1 }, options)
        bound.push(server)
        if ('port' in server.address) port = server.address.port
      }
    }
  } catch (error) {
    await Promise.all(bound.map(server => server.close()))
    throw error
  }
  let closed: Promise<unknown> | undefined
  return {
    addresses: bound.map(({ address }) => address),
    setMaxConnections: max => {
      for (const server of bound) server.setMaxConnections(max)
    },
    close: async () => {
      closed ??= Promise.all(bound.map(server => server.close()))
      await closed
    },
    destroyConnections: () => {
      for (const server of bound) server.destroyConnections()
    },
  }
}

/** The URL of an address, such as `https://localhost:8443`; `unix:/path` for a Unix socket. */
export function formatUrl(scheme: 'http' | 'https' | 'ws' | 'wss' | 'mqtt' | 'mqtts', address: BoundAddress): string {
  if ('path' in address) return `unix:${address.path}`
  const { host, port } = address
  const isDefault = (port === 80 && /^(http|ws)$/.test(scheme)) || (port === 443 && /^(https|wss)$/.test(scheme))
  return `${scheme}://${nameOf(host)}${isDefault ? '' : `:${port}`}`
}

function nameOf(host: string): string {
  if (host === '127.0.0.1' || host === '::1') return 'localhost'
  return host === '0.0.0.0' || host === '::' ? hostname() : formatHost(host)
}

interface BoundServer {
  readonly address: BoundAddress
  setMaxConnections(max: number): void
  close(): Promise<void>
  destroyConnections(): void
}

async function bindPort(
  createServer: () => Server,
  where: { host: string; port: number; ipv6Only: boolean },
  options: ListenOptions,
): Promise<BoundServer> {
  const first = createServer()
  const others = Array.from({ length: listeningSockets - 1 }, createServer)
  const servers = [first, ...others]
  const isShared = others.length > 0
  try {
    let { port } = where
    // Another process that shares its port would go unnoticed.
    if (isShared) port = await findFreePort(where)
    for (const server of servers) await started(server, isShared ? { ...where, port, reusePort: true } : where)
    // A listening TCP server has an AddressInfo.
    const { address, port: bound } = first.address() as AddressInfo
    return hold(servers, { host: address, port: bound }, options)
  } catch (error) {
    await Promise.all(servers.filter(server => server.listening).map(closed))
    throw await bindFailure(error, { ...where, purpose: options.purpose })
  }
}

/** The port, if no process listens at it; for 0, a free one. */
async function findFreePort(where: { host: string; port: number; ipv6Only: boolean }): Promise<number> {
  const server = createNetServer(socket => socket.destroy())
  await started(server, where)
  const { port } = server.address() as AddressInfo
  await closed(server)
  return port
}

async function bindInherited(server: Server, inherited: InheritedSocket, options: ListenOptions): Promise<BoundServer> {
  const { host, port, socket } = inherited
  try {
    server.listen(socket, backlog)
    await once(server, 'listening')
  } catch (error) {
    throw await bindFailure(error, { host, port, purpose: options.purpose })
  }
  return hold([server], { host, port }, options)
}

async function bindPath(server: Server, path: string, options: ListenOptions): Promise<BoundServer> {
  try {
    await listenAtPath(server, path, options.unixSocketMode ?? defaultUnixSocketMode)
  } catch (error) {
    server.close()
    throw await bindFailure(error, { path, purpose: options.purpose })
  }
  // libuv removes the file when the server closes.
  return hold([server], { path }, options)
}

/** Whether several sockets of this process may listen at one port, and share its connections (`SO_REUSEPORT`). */
function canSharePorts(): boolean {
  // The primary process listens for its workers.
  if (cluster.isWorker) return false
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  return process.platform === 'linux' && (major > 22 || (major === 22 && minor >= 12))
}

function closed(server: Server): Promise<void> {
  return new Promise(resolve => server.close(() => resolve()))
}

async function started(
  server: Server,
  where: { host: string; port: number; reusePort?: boolean } | { path: string },
): Promise<void> {
  server.listen({ ...where, backlog })
  await once(server, 'listening')
}

/** Listens at a Unix socket; see `listen`. Rejects with the error of the system; then the server is to be closed. */
export async function listenAtPath(server: Server, path: string, mode: number): Promise<void> {
  // libuv would truncate a longer path.
  if (Buffer.byteLength(path) > maxSocketPathBytes)
    throw Object.assign(new Error('the path is too long'), { code: 'ENAMETOOLONG' })
  const isPrivate = (mode & 0o077) === 0
  await startedAtPath(server, path, isPrivate).catch(async error => {
    if (!(await isStaleSocket(path, error))) throw error
    await unlink(path)
    await startedAtPath(server, path, isPrivate)
  })
  await chmod(path, mode)
}

/** @param isPrivate whether nobody but the owner may connect, also before the mode is set */
function startedAtPath(server: Server, path: string, isPrivate: boolean): Promise<void> {
  if (!isPrivate) return started(server, { path })
  // `listen` makes the file before it returns.
  const mask = process.umask(0o077)
  try {
    return started(server, { path })
  } finally {
    process.umask(mask)
  }
}

async function isStaleSocket(path: string, error: unknown): Promise<boolean> {
  if (codeOf(error) !== 'EADDRINUSE') return false
  if (!(await lstat(path)).isSocket()) return false
  const probe = createConnection(path)
  try {
    await once(probe, 'connect')
    return false
  } catch (refusal) {
    return codeOf(refusal) === 'ECONNREFUSED'
  } finally {
    probe.destroy()
  }
}

/** Tracks the sockets of the servers at one address, so that they can be destroyed. */
function hold(servers: readonly Server[], address: BoundAddress, options: ListenOptions): BoundServer {
  /** Sockets, each with the network to release. */
  const sockets = new Map<Socket, string | undefined>()
  const dropped = countDrops(options)
  let { maxConnections } = options
  const setMaxConnections = (max: number): void => {
    maxConnections = max
    // The primary process would offer a connection that all workers refuse to them again and again.
    if (!cluster.isWorker) for (const server of servers) server.maxConnections = max
  }
  setMaxConnections(maxConnections)
  // One listener for all, without `once`: 200 bytes less for each.
  function forget(this: Socket): void {
    const network = sockets.get(this)
    sockets.delete(this)
    if (network !== undefined) options.sockets?.release(network)
  }
  const admit = (socket: Socket): { readonly network: string | undefined } | { readonly refusal: ErrorReason } => {
    // `maxConnections` is for each server.
    if (sockets.size >= maxConnections) return { refusal: 'too-many-connections' }
    return options.sockets?.admit(socket.remoteAddress) ?? { network: undefined }
  }
  /**
   * Whether the peer has reset its connection before its address was read: without an address, it would count as a peer on a Unix socket. Node.js keeps an
   * address that was read once.
   */
  const hasLeft = (socket: Socket): boolean => !('path' in address) && socket.remoteAddress === undefined
  for (const server of servers) {
    server.on('secureConnection', (socket: Socket) => {
      if (hasLeft(socket)) socket.destroy()
    })
    server.on('connection', socket => {
      options.tickBudget?.accepted()
      if (hasLeft(socket)) {
        socket.destroy()
        return
      }
      const admitted = admit(socket)
      sockets.set(socket, 'network' in admitted ? admitted.network : undefined)
      socket.on('close', forget)
      if ('network' in admitted) return
      dropped(admitted.refusal, socket.remoteAddress)
      socket.destroy()
    })
    // Last: it delays the listeners above, and those of the server itself.
    options.proxied?.watch(server, (detail, peer) => dropped('proxy-header-invalid', peer, detail))
    if (options.proxied) server.prependListener('secureConnection', options.proxied.identify)
    server.on('error', error => options.log.error({ err: error }, 'A listener failed'))
    server.on('drop', data => dropped('too-many-connections', data?.remoteAddress))
  }
  let closing: Promise<unknown> | undefined
  return {
    address,
    setMaxConnections,
    close: async () => {
      closing ??= Promise.all(servers.map(closed))
      await closing
    },
    destroyConnections: () => {
      options.proxied?.close()
      for (const socket of sockets.keys()) socket.destroy()
    },
  }
}

/** Counts connections that are dropped before a request. */
function countDrops({
  log,
  metrics,
  purpose,
}: ListenOptions): (reason: ErrorReason, peer?: string, detail?: string) => void {
  let dropped = 0
  let lastLog = Number.NEGATIVE_INFINITY
  return (reason, peer, detail = 'all are taken') => {
    metrics.refused(reason)
    dropped += 1
    if (performance.now() - lastLog < dropLogInterval) return
    log.warn({ purpose, reason, peer, dropped }, `Connections were dropped: ${detail}`)
    lastLog = performance.now()
    dropped = 0
  }
}
