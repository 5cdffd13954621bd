import { once, setMaxListeners } from 'node:events'
import net from 'node:net'
import type { AttackTarget } from './scenario.js'

/** A TCP connection of the attacker's, whose bytes are written as they are. */
export interface RawConnection {
  /** Everything that came so far. */
  readonly received: string
  readonly isOpen: boolean
  /** Writes, and waits until the kernel has it; resolves too where the connection has ended. */
  write(bytes: string | Buffer): Promise<void>
  /** Resolves when `text` has come or the connection has ended. */
  until(text: string): Promise<void>
  /** Resolves when the connection has ended. */
  ended(): Promise<void>
  /** Cuts it off. */
  end(): Promise<void>
}

/** Connects to the HTTP port of the target; it ends with `signal`. One that is refused is not open. */
export async function connectRaw({ http, address }: AttackTarget, signal: AbortSignal): Promise<RawConnection> {
  const { hostname, port } = new URL(http)
  const socket = net.connect({ host: hostname, port: Number(port), localAddress: address })
  const destroy = (): void => void socket.destroy()
  signal.addEventListener('abort', destroy, { once: true })
  let received = ''
  socket.on('data', chunk => {
    received += chunk.toString('latin1')
  })
  socket.on('error', () => {})
  const closed = new Promise<void>(resolve => {
    socket.once('close', () => {
      signal.removeEventListener('abort', destroy)
      resolve()
    })
  })
  if (signal.aborted) destroy()
  await Promise.race([once(socket, 'connect'), closed]).catch(() => {})
  return {
    get received() {
      return received
    },
    get isOpen() {
      return !socket.destroyed && socket.writable
    },
    write: bytes => {
      if (socket.destroyed || !socket.writable) return Promise.resolve()
      return Promise.race([new Promise<void>(resolve => socket.write(bytes, () => resolve())), closed])
    },
    until: async text => {
      while (!received.includes(text) && !socket.destroyed) {
        await Promise.race([once(socket, 'data').catch(() => {}), closed])
      }
    },
    ended: () => closed,
    end: () => {
      destroy()
      return closed
    },
  }
}

/** Opens a WebSocket; the frames are up to the caller, with masks of 0. */
export async function connectRawSocket(
  target: AttackTarget,
  path: string,
  signal: AbortSignal,
): Promise<RawConnection> {
  const connection = await connectRaw(target, signal)
  const headers = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13']
  const key = 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='
  await connection.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${[...headers, key].join('\r\n')}\r\n\r\n`)
  await connection.until('\r\n\r\n')
  return connection
}

/** A client's text frame with a mask of 0. `isLast`: whether the message ends with it. */
export function textFrame(payload: Buffer, isLast = true): Buffer {
  const head = Buffer.alloc(14)
  head[0] = isLast ? 0x81 : 0x01
  head[1] = 0xff
  head.writeBigUInt64BE(BigInt(payload.length), 2)
  return Buffer.concat([head, payload])
}

/** Resolves after so many milliseconds, or when `signal` is aborted. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds)
    signal.addEventListener('abort', done, { once: true })
    if (signal.aborted) done()
  })
}

/**
 * Runs `attack` so many times at the same time, each again and again, until `signal` is aborted.
 *
 * @param wait between two times, in milliseconds; they begin one after the other within as many
 */
export async function repeat(
  times: number,
  signal: AbortSignal,
  attack: (index: number) => Promise<number>,
  wait = 50,
): Promise<number> {
  setMaxListeners(0, signal)
  const loop = async (_: unknown, index: number): Promise<number> => {
    await pause((index * wait) / times, signal)
    let sent = 0
    while (!signal.aborted) {
      sent += await attack(index)
      await pause(wait, signal)
    }
    return sent
  }
  const sent = await Promise.all(Array.from({ length: times }, loop))
  return sent.reduce((sum, count) => sum + count, 0)
}
