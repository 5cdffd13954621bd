import { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/*
 * Requests of HTTP/1.1 may come before the answers to those before them have gone (pipelining, RFC 9112 §9.3.2). Node keeps
 * those answers in order, unless somebody else writes to the connection: so who does has to know whether it is theirs.
 */

/** The answer to the newest request of a connection, while that is open. */
const last = Symbol('last answer')

declare module 'node:net' {
  interface Socket {
    [last]?: ServerResponse | undefined
  }
}

/**
 * An answer of HTTP/1.1 that its connection knows of from its request on: also one that Node's server gives without asking
 * anybody, as to a request without `Host`.
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

/** What a connection knows of its answers; `undefined` where there is none to be given. */
export function newestResponse(socket: Socket): ServerResponse | undefined {
  return socket[last]
}

/** Whether a connection has this answer to give and no other. */
export function isOnlyResponse(answer: ServerResponse): boolean {
  const { socket } = answer.req
  // Those that wait for the ones before them have no connection yet.
  return answer.socket !== null && (socket[last] ?? answer) === answer
}

/** Whether there is a request on a connection whose answer is not all there: what is written now would come before it. */
export function owesResponse(socket: Socket): boolean {
  const answer = socket[last]
  return answer !== undefined && !(answer.writableEnded && answer.socket !== null)
}

/** Whether Node has a use for a connection: an answer that is all there may be on its way, and keep others off. */
export function isResponding(socket: Socket): boolean {
  return socket[last] !== undefined
}
