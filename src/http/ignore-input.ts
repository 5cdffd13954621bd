import type { Socket } from 'node:net'

const ignored = Symbol('input ignored')

declare module 'node:net' {
  interface Socket {
    [ignored]?: true
  }
}

/** Has what else a client sends thrown away, whoever has listened for it: the parser may be another connection's soon. */
export function ignoreInput(socket: Socket): void {
  const listeners = socket.listeners('data')
  // To be told of its bytes takes them away from the parser of requests; whose own listener goes as well.
  socket.on('data', ignore)
  for (const listener of listeners) socket.removeListener('data', listener as () => void)
  socket[ignored] = true
  socket.resume()
}

/** Whether what a client sends is thrown away. */
export function isInputIgnored(socket: Socket): boolean {
  return socket[ignored] === true
}

function ignore(): void {}
