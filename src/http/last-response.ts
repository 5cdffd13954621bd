import { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/*
 * Requests of HTTP/1.1 may come before earlier responses are sent (pipelining, RFC 9112 §9.3.2). Node keeps responses in order; code that writes
 * to the connection itself has to know whether it is its turn.
 */

/** The open response to the newest request of a connection. */
const last = Symbol('last answer')

declare module 'node:net' {
  interface Socket {
    [last]?: ServerResponse | undefined
  }
}

/**
 * A response of HTTP/1.1 that its connection knows from the request on, also if Node's server sends it itself, as to a request without `Host`.
 */
export class TrackedResponse extends ServerResponse {
  constructor(...given: ConstructorParameters<typeof ServerResponse>) {
    super(...given)
    this.req.socket[last] = this
    this.on('close', forget)
  }
}

function forget(this: ServerResponse): void {
  const { socket } = this.req
  if (socket[last] === this) socket[last] = undefined
}

/** The newest open response of a connection; `undefined` for none. */
export function newestResponse(socket: Socket): ServerResponse | undefined {
  return socket[last]
}

/** Whether this is the only open response of its connection. */
export function isOnlyResponse(answer: ServerResponse): boolean {
  const { socket } = answer.req
  // Node assigns the connection to a response when those before it are sent.
  return answer.socket !== null && (socket[last] ?? answer) === answer
}

/** Whether a response of the connection is incomplete: bytes written now would come before it. */
export function owesResponse(socket: Socket): boolean {
  const answer = socket[last]
  return answer !== undefined && !(answer.writableEnded && answer.socket !== null)
}

/** Whether a response of the connection is open, complete or not. */
export function isResponding(socket: Socket): boolean {
  return socket[last] !== undefined
}
