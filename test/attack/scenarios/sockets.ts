import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

/** A TCP connection of the attacker. Errors are ignored: the gateway may end it. */
export async function openSocket(url: string, localAddress: string): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(url).port), localAddress })
  socket.on('error', () => {})
  await once(socket, 'connect').catch(() => {})
  return socket
}

/** A TLS connection of the attacker for HTTP/2. */
export async function openHttp2Socket(url: string, localAddress: string): Promise<Socket> {
  const raw = await openSocket(url, localAddress)
  const socket = connectTls({ socket: raw, rejectUnauthorized: false, ALPNProtocols: ['h2'] })
  socket.on('error', () => {})
  await once(socket, 'secureConnect').catch(() => {})
  return socket
}

/** Resolves when something has come from the gateway, or the connection has closed, or after so many milliseconds. */
export async function answered(socket: Socket, milliseconds = 2000): Promise<void> {
  const timeout = AbortSignal.timeout(milliseconds)
  if (socket.closed) return
  await Promise.race([once(socket, 'data', { signal: timeout }), once(socket, 'close', { signal: timeout })]).catch(
    () => {},
  )
}

export async function closed(socket: Socket): Promise<void> {
  if (socket.closed) return
  const gone = once(socket, 'close')
  socket.destroy()
  await gone
}
