import type { IncomingMessage } from 'node:http'
import { z } from 'zod'
import type { ClientResolver } from '../../access/client-address.js'
import { GatewayError } from '../../base/errors.js'
import { anonymous, type Identity } from '../../base/identity.js'
import { ParameterError, readValue } from '../../http/parameters.js'
import { memoizeCursor } from '../event-json.js'
import { Heartbeats } from '../heartbeats.js'
import type { Operation } from '../operation.js'
import { subscribeFields } from '../subscribe-query.js'
import { authorizeSubscribe, deviceOf } from '../subscriptions.js'
import { type NewSocket, SocketConnection, type SocketContext } from './socket-connection.js'
import { encodeLive, socketEncoder } from './socket-frames.js'
import { chooseSubprotocol, type SocketEndpoint, WebSockets } from './web-sockets.js'

const path = '/v1/socket'

/** The subprotocol, if a client offers any. */
const subprotocol = 'mqway'

/** Milliseconds of silence before a ping. */
const defaultPingInterval = 30_000

const query = z.object({ ...subscribeFields, topic: subscribeFields.topic.optional() })

/** `GET /v1/socket` */
export const socketOperations: readonly Operation[] = [
  {
    method: 'get',
    path,
    summary: 'A WebSocket with JSON in text frames, both ways (PROTOCOL.md); no subprotocol, or mqway',
    query,
    responses: {
      101: { description: 'The first message is the welcome' },
      426: { description: 'Not a handshake of WebSocket version 13', type: 'text/plain' },
    },
  },
]

export interface SocketOptions extends Omit<SocketContext, 'heartbeats' | 'pings' | 'cursorEvents'> {
  readonly resolveClient: ClientResolver
  /** Milliseconds until a close frame has to be answered. */
  readonly closeTimeout: number
  /** Milliseconds; default: 30,000. */
  readonly pingInterval?: number
}

/** Creates `GET /v1/socket`: plain WebSockets, with JSON in text frames. Its upgrades are admitted before. */
export function createSocketRoute(options: SocketOptions): SocketEndpoint {
  const { gate, push, bodies, resolveClient, pingInterval = defaultPingInterval } = options
  const context: SocketContext = {
    ...options,
    heartbeats: new Heartbeats(push.config.heartbeat),
    pings: new Heartbeats(pingInterval),
    cursorEvents: memoizeCursor(encodeLive),
  }
  const sockets = new WebSockets({ ...options, maxPayload: bodies.limit })
  const authorize = (filters: readonly string[], identity: Identity): void =>
    authorizeSubscribe(gate.permissionsOf(identity), filters)
  return {
    get size() {
      return sockets.size
    },
    get bufferedBytes() {
      return sockets.bufferedBytes
    },
    matches: candidate => candidate === path || candidate === `${path}/`,
    chooseSubprotocol: offered => chooseSubprotocol(offered, subprotocol),
    check: request => void readSocketQuery(request),
    checkQuery: (request, identity) => authorize(parseSocketQuery(request).topic ?? [], identity),
    accept: upgrade => {
      const { request, peer, log } = upgrade
      const { topic: filters = [], json, cursor, last, device } = readSocketQuery(request)
      const { identity = anonymous } = peer
      authorize(filters, identity)
      const { address } = resolveClient(request)
      const socket: NewSocket = {
        ...{ identity, address, filters, log, cursor, last },
        device: deviceOf(identity, device),
        encode: socketEncoder({ json }),
      }
      sockets.accept(upgrade, { address, user: identity.user }, createWriter => {
        return new SocketConnection(context, socket, createWriter)
      })
    },
    close: grace => sockets.close(grace),
  }
}

/** @throws {GatewayError} `invalid-parameter` */
function readSocketQuery(request: IncomingMessage): z.output<typeof query> {
  try {
    return parseSocketQuery(request)
  } catch (error) {
    if (error instanceof ParameterError) throw new GatewayError('invalid-parameter', { hint: error.message })
    throw error
  }
}

/** @throws {ParameterError} */
function parseSocketQuery({ url = '' }: IncomingMessage): z.output<typeof query> {
  const given = new Map<string, string[]>()
  for (const [name, value] of new URLSearchParams(url.split('?').slice(1).join('?'))) {
    const values = given.get(name)
    if (values) values.push(value)
    else given.set(name, [value])
  }
  const entries = [...given].map(([name, values]) => [name, values.length === 1 ? values[0] : values])
  return readValue(query, Object.fromEntries(entries))
}
