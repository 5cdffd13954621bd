import type { IncomingMessage } from 'node:http'
import { z } from 'zod'
import type { ClientResolver } from '../../access/client-address.js'
import type { Rate } from '../../access/rate-limits.js'
import { GatewayError } from '../../base/errors.js'
import { anonymous, type Identity } from '../../base/identity.js'
import { ParameterError, readValue } from '../../http/parameters.js'
import type { Upgrade, UpgradeRoute } from '../../http/upgrade-route.js'
import { Heartbeats } from '../heartbeats.js'
import { MemoizedBuffer } from '../memoized-buffer.js'
import type { Operation } from '../operation.js'
import { subscribeFields } from '../subscribe-query.js'
import { authorizeSubscribe, deviceOf } from '../subscriptions.js'
import type { TransportContext } from '../transport-context.js'
import { type NewSocket, SocketConnection } from './socket-connection.js'
import type { SocketContext } from './socket-context.js'
import { encodeLive, socketEncoder } from './socket-frames.js'
import { SocketWriter } from './socket-writer.js'
import { chooseSubprotocol, WebSockets } from './web-sockets.js'

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

export interface SocketOptions extends TransportContext {
  readonly resolveClient: ClientResolver
  /** Publish rate of one connection; left out for no limit. */
  readonly publishes?: Rate | undefined
  /** Milliseconds until a close frame has to be answered. */
  readonly closeTimeout: number
  /** Milliseconds; default: 30,000. */
  readonly pingInterval?: number
}

/** The endpoint of plain WebSockets. */
export interface SocketRoute extends Pick<UpgradeRoute, 'matches' | 'accept'> {
  /** Open sockets. */
  readonly size: number
  /** Bytes that are queued for clients. */
  readonly bufferedBytes: number
  chooseSubprotocol(offered: readonly string[]): string | undefined
  check(request: IncomingMessage): void
  /** @throws {ParameterError | GatewayError} `topic-refused` */
  checkQuery(request: IncomingMessage, identity: Identity): void
  /**
   * Ends all, each with its cursor. Idempotent.
   *
   * @param grace milliseconds after which open connections are destroyed
   */
  close(grace: number): Promise<void>
}

/** Creates `GET /v1/socket`: plain WebSockets, with JSON in text frames. Its upgrades are admitted before. */
export function createSocketRoute(options: SocketOptions): SocketRoute {
  return new Route(options)
}

class Route implements SocketRoute {
  readonly #context: SocketContext
  readonly #resolveClient: ClientResolver
  readonly #sockets: WebSockets

  constructor({ resolveClient, publishes, closeTimeout, pingInterval, ...options }: SocketOptions) {
    this.#context = {
      ...options,
      publishes,
      closeTimeout,
      heartbeats: new Heartbeats(options.push.config.heartbeat),
      pings: new Heartbeats(pingInterval ?? defaultPingInterval),
      cursorEvents: new MemoizedBuffer(encodeLive),
    }
    this.#resolveClient = resolveClient
    this.#sockets = new WebSockets(options.bodies.limit)
  }

  get size(): number {
    return this.#sockets.size
  }

  get bufferedBytes(): number {
    return this.#sockets.bufferedBytes
  }

  matches(candidate: string): boolean {
    return candidate === path || candidate === `${path}/`
  }

  chooseSubprotocol(offered: readonly string[]): string | undefined {
    return chooseSubprotocol(offered, subprotocol)
  }

  check(request: IncomingMessage): void {
    readSocketQuery(request)
  }

  checkQuery(request: IncomingMessage, identity: Identity): void {
    const { topic: filters = [] } = parseSocketQuery(request)
    authorizeSubscribe(this.#context.gate.permissionsOf(identity), filters)
  }

  accept(upgrade: Upgrade): void {
    const { request, peer, log } = upgrade
    const { topic: filters = [], json, cursor, last, device } = readSocketQuery(request)
    const identity = peer.identity ?? anonymous
    authorizeSubscribe(this.#context.gate.permissionsOf(identity), filters)
    const order: NewSocket = {
      ...{ identity, filters, log },
      client: this.#resolveClient(request),
      device: deviceOf(identity, device),
      encode: socketEncoder({ json }),
      ...(cursor !== undefined && { cursor }),
      ...(last !== undefined && { last }),
    }
    const { bodies, closeTimeout } = this.#context
    this.#sockets.accept(upgrade, (webSocket, connection) => {
      const held = bodies.budget.open({ address: order.client.address, user: identity.user })
      const writer = { webSocket, connection, held, messageTimeout: bodies.timeout, closeTimeout }
      return new SocketConnection(this.#context, order, listener => new SocketWriter(writer, listener))
    })
  }

  close(grace: number): Promise<void> {
    return this.#sockets.close(grace)
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
