import type { Socket } from 'node:net'

const ignored = Symbol('input ignored')

declare module 'node:net' {
  interface Socket {
    [ignored]?: true
  }
}

/** Discards all further input of a connection, and removes its listeners: its parser may be another connection's soon. */
export function ignoreInput(socket: Socket): void {
  const listeners = socket.listeners('data')
  // A 'data' listener makes Node feed the parser through 'data' as well, whose listener is removed below.
  socket.on('data', ignore)
  for (const listener of listeners) socket.removeListener('data', listener as () => void)
  socket[ignored] = true
  socket.resume()
}

/** Whether further input is discarded. */
export function isInputIgnored(socket: Socket): boolean {
  return socket[ignored] === true
}

function ignore(): void {}
