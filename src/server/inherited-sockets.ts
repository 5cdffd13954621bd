import { Socket } from 'node:net'
import { formatHost } from '../access/addresses.js'
import { StartError } from '../base/start-error.js'
import { isAny, isLoopback, type Listener, type ListenerName, listenerNames, listeners } from '../config/listeners.js'
import type { Config } from '../config/schema.js'

/** A TCP socket that systemd has opened and listens at, so that connections wait while this program is not running (socket activation). */
export interface InheritedSocket {
  readonly purpose: ListenerName
  readonly host: string
  readonly port: number
  /** Its handle, for `Server.listen`; the server then closes it. */
  readonly socket: Socket
}

/** The first descriptor that systemd passes (`SD_LISTEN_FDS_START`), and the most that are taken. */
const [firstDescriptor, maxSockets] = [3, 64]

/**
 * Takes the sockets that systemd passes to this process (sd_listen_fds(3)), and removes their variables, which are not for programs that it starts. Node
 * closes the descriptors in those.
 *
 * @param pid of this process: the variables of another one are left alone
 * @throws {StartError} for a name that is not that of a listener, and for what is no TCP socket
 */
export function takeInheritedSockets(env: NodeJS.ProcessEnv, pid: number): InheritedSocket[] {
  if (!inheritsSockets(env, pid)) return []
  const count = Number(env['LISTEN_FDS'])
  const names = (env['LISTEN_FDNAMES'] ?? '').split(':')
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name]
  if (!Number.isInteger(count) || count < 1 || count > maxSockets) {
    throw new StartError(`LISTEN_FDS=${count}: must be a number of sockets, from 1 to ${maxSockets}`)
  }
  return Array.from({ length: count }, (_, index) => {
    const name = names[index] ?? ''
    const purpose = listenerNames.find(known => known === name)
    if (purpose === undefined) {
      throw new StartError(
        `the socket “${name}” of systemd needs a name: FileDescriptorName= ${listenerNames.join(', ')}`,
      )
    }
    return openSocket(purpose, firstDescriptor + index)
  })
}

/** Whether systemd passes sockets to this process. */
export function inheritsSockets(env: NodeJS.ProcessEnv, pid: number): boolean {
  return env['LISTEN_FDS'] !== undefined && env['LISTEN_PID'] === String(pid)
}

/**
 * Checks that the configuration has the address of each socket: its checks of what other machines can reach then hold for the sockets, too.
 *
 * @throws {StartError} with the option that differs
 */
export function checkInheritedSockets(sockets: readonly InheritedSocket[], config: Config): void {
  for (const { purpose, host, port } of sockets) {
    const own = listeners(config).filter(({ name }) => name === purpose)
    const where = `the socket “${purpose}” of systemd is port ${port} on ${host}`
    if (!own.some(listener => listener.port === port)) {
      const ports = own.map(listener => listener.port).join(', ') || 'off'
      throw new StartError(`${where}, but ${purpose}.port is ${ports}: both must be the same`)
    }
    if (own.some(listener => listener.port === port && covers(listener, host))) continue
    const [hosts, path] = [own.flatMap(listener => listener.hosts), own[0]?.hostPath ?? []]
    const address = `ListenStream=${formatHost(hosts[0] ?? '')}:${port}`
    throw new StartError(
      `${where}, but ${path.join('.')} is ${hosts.join(', ')}: both must be the same (such as ${address})`,
    )
  }
}

function covers({ hosts }: Listener, address: string): boolean {
  return hosts.some(host => host === address || (isLoopback(host) ? isLoopback(address) : isAny(host)))
}

function openSocket(purpose: ListenerName, fd: number): InheritedSocket {
  let cause: unknown
  try {
    // Neither reads nor accepts: the handle is the server's as soon as one listens.
    const socket = new Socket({ fd, readable: false, writable: false })
    const address = socket.address()
    if ('port' in address && 'address' in address) return { purpose, host: address.address, port: address.port, socket }
  } catch (error) {
    cause = error
  }
  throw new StartError(
    `the socket “${purpose}” of systemd (descriptor ${fd}) is no TCP socket: ListenStream= needs an address and a port`,
    { cause },
  )
}
