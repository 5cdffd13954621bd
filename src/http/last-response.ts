import { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/*
 * Requests of HTTP/1.1 may come before earlier responses are sent (pipelining, RFC 9112 §9.3.2). Node keeps responses in order; code that writes
 * to the connection itself has to know whether it is its turn.
 */

/** The open response to the newest request of a connection. */
const newest = Symbol('newest response')

declare module 'node:net' {
  interface Socket {
    [newest]?: ServerResponse | undefined
  }
}

/**
 * A response of HTTP/1.1 that its connection knows from the request on, also if Node's server sends it itself, as to a request without `Host`.
 */
export class TrackedResponse extends ServerResponse {
  constructor(...given: ConstructorParameters<typeof ServerResponse>) {
    super(...given)
    trackResponse(this)
  }
}

/** Does the same for a response of another program's server; to be called once, in the `request` event. */
export function trackResponse(response: ServerResponse): void {
  response.req.socket[newest] = response
  response.on('close', forget)
}

function forget(this: ServerResponse): void {
  const { socket } = this.req
  if (socket[newest] === this) socket[newest] = undefined
}

/** The newest open response of a connection; `undefined` for none. */
export function newestResponse(socket: Socket): ServerResponse | undefined {
  return socket[newest]
}

/** Whether this is the only open response of its connection. */
export function isOnlyResponse(response: ServerResponse): boolean {
  const { socket } = response.req
  // Node assigns the connection to a response when those before it are sent.
  return response.socket !== null && (socket[newest] ?? response) === response
}

/** Whether a response of the connection is incomplete: bytes written now would precede it. */
export function owesResponse(socket: Socket): boolean {
  const response = socket[newest]
  return response !== undefined && !(response.writableEnded && response.socket !== null)
}
