import { once } from 'node:events'
import { onTestFinished } from 'vitest'
import { type ClientOptions, WebSocket } from 'ws'
import { compileClientResolver } from '../../src/access/client-address.js'
import { ConnectionLimits } from '../../src/access/limits.js'
import { UserLimits } from '../../src/access/user-limits.js'
import { attemptOf } from '../../src/http/request-identity.js'
import { UpgradeRouter } from '../../src/server/upgrade.js'
import { createSocketRoute, type SocketOptions } from '../../src/transports/socket/socket.js'
import type { SocketEndpoint } from '../../src/transports/socket/web-sockets.js'
import { eventually } from '../helpers/wait.js'
import { type Rig, type RigOptions, startRig } from './rig.js'

/** A message of the gateway. */
export interface Told {
  readonly type: string
  readonly [member: string]: unknown
}

export interface SocketRig extends Rig {
  readonly route: SocketEndpoint
  /** Connects, and resolves with the welcome. */
  connect(query?: string, options?: ClientOptions & { readonly protocols?: string[] }): Promise<TestSocket>
}

/** A rig with the endpoint of sockets; it is closed with the test. */
export async function startSocketRig(
  options: Partial<RigOptions> & { readonly socket?: Partial<SocketOptions> } = {},
): Promise<SocketRig> {
  const resolveClient = compileClientResolver([])
  let made: SocketEndpoint | undefined
  const rig: Rig = await startRig({
    register: () => {},
    ...options,
    onUpgrade: transport => {
      const route = createSocketRoute({ ...transport, resolveClient, closeTimeout: 500, ...options.socket })
      made = route
      const { log, metrics } = transport
      const router = new UpgradeRouter({
        routes: [
          {
            ...route,
            allowsOrigin: () => true,
            identity: {
              challenge: '',
              find: (request, client) => {
                const { authenticator } = rig.access
                return authenticator?.authenticate(attemptOf(request, client, 'websocket', {}))
              },
            },
          },
        ],
        ...{
          limits: new ConnectionLimits({ connections: 10_000, connectionsPerAddress: 10_000 }),
          users: new UserLimits('off'),
          urlLength: 8192,
          resolveClient,
          log,
          metrics,
        },
        nextId: () => '1',
      })
      return (request, socket, head) => router.handle(request, socket, head)
    },
  })
  onTestFinished(() => rig.close())
  if (!made) throw new Error('there is no endpoint')
  const route = made
  return {
    ...rig,
    route,
    connect: async (query = '', { protocols, ...more } = {}) => {
      const socket = new TestSocket(`ws://127.0.0.1:${rig.port}/v1/socket${query}`, protocols, more)
      await socket.next('welcome')
      return socket
    },
  }
}

/** A client that keeps what it is told. */
export class TestSocket {
  readonly webSocket: WebSocket
  readonly told: Told[] = []
  closed: { code: number; reason: string } | undefined
  #read = 0
  #refs = 0

  constructor(url: string, protocols: string[] = [], options: ClientOptions = {}) {
    this.webSocket = new WebSocket(url, protocols, options)
    this.webSocket.on('message', data => this.told.push(JSON.parse(String(data))))
    this.webSocket.on('close', (code, reason) => {
      this.closed = { code, reason: String(reason) }
    })
    this.webSocket.on('error', () => {})
    onTestFinished(() => this.webSocket.terminate())
  }

  /** The next message of a type, now or later; those before it are passed over. */
  async next(type: string): Promise<Told> {
    let found: Told | undefined
    await eventually(() => {
      const at = this.told.findIndex((told, index) => index >= this.#read && told.type === type)
      if (at === -1) return false
      found = this.told[at]
      this.#read = at + 1
      return true
    })
    return found ?? { type }
  }

  send(message: unknown): void {
    this.webSocket.send(typeof message === 'string' ? message : JSON.stringify(message))
  }

  /** Asks for something, and resolves with the answer, of whichever kind. */
  async ask(message: Record<string, unknown>): Promise<Told> {
    const ref = ++this.#refs
    this.send({ ...message, ref })
    let found: Told | undefined
    await eventually(() => {
      found = this.told.find(told => told['ref'] === ref)
      return found !== undefined
    })
    return found ?? { type: '' }
  }

  get events(): Told[] {
    return this.told.filter(({ type }) => type === 'event')
  }

  payloads(): unknown[] {
    return this.events.map(event => event['payload'])
  }

  get id(): string {
    return String(this.told[0]?.['connection'])
  }

  async close(): Promise<void> {
    this.webSocket.close()
    await once(this.webSocket, 'close')
  }
}
