import type { Socket } from 'node:net'
import { ignoreInput } from '../http/ignore-input.js'

/** What Node's server listens to on a connection of HTTP/1.1, and lets go of where it hands one over as an upgrade. */
const events = ['end', 'close', 'drain', 'error', 'timeout'] as const

/**
 * Takes a connection away from Node's HTTP server, which will get no further request from it: its parser, which it
 * otherwise keeps until the connection closes, is 1.9 KB and what listens for it 1.7. Only an upgrade has a documented way;
 * so this calls what the server itself has for the end of a connection, by its name, which is the same in Node 20 and 25.
 * Where it is not found, nothing is freed.
 *
 * Call it when the server knows of no unanswered request on the connection: it aborts those. From then on, what comes is
 * thrown away, errors too, of which the connection closes; and so is its end answered.
 */
export function detachFromServer(socket: Socket): void {
  ignoreInput(socket)
  for (const event of events) {
    const listeners = socket.rawListeners(event) as (() => void)[]
    // All, so that those that stay get a list that has no room for twenty.
    for (const listener of listeners) socket.removeListener(event, listener)
    for (const listener of listeners) {
      if (!isServers(listener)) socket.on(event, listener)
      else if (event === 'close') listener()
    }
  }
  socket.on('error', ignore).on('end', endToo)
}

function isServers({ name }: { readonly name: string }): boolean {
  return /^(bound )?socketOn[A-Z]/.test(name)
}

function ignore(): void {}

function endToo(this: Socket): void {
  this.end()
}
