import { expect, onTestFinished } from 'vitest'
import { type ClientOptions, WebSocket } from 'ws'
import { compileClientResolver } from '../../src/access/client-address.js'
import { ConnectionLimits } from '../../src/access/limits.js'
import { UserLimits } from '../../src/access/user-limits.js'
import { type RrrOptions, registerRrr } from '../../src/compat/rrr/push.js'
import { createRrrSocketRoute, type RrrSocketOptions } from '../../src/compat/rrr/socket.js'
import type { RrrConfig } from '../../src/config/compat.js'
import type { Message } from '../../src/mqtt/message.js'
import { UpgradeRouter } from '../../src/server/upgrade.js'
import type { SocketEndpoint } from '../../src/transports/socket/web-sockets.js'
import { eventually } from '../helpers/wait.js'
import { type Rig, type RigOptions, startRig } from '../transports/rig.js'

/** As the configuration has it, but that nothing happens by itself while a test runs. */
export const rrrDefaults: RrrConfig = {
  prefix: '/rrr',
  wait: 60_000,
  maxHandles: 10,
  maxQueued: 100,
  maxAge: 60_000,
  websocketTopicFilters: ['#'],
  binary: false,
}

export interface RrrRig extends Rig {
  readonly rrr: ReturnType<typeof registerRrr>
  ask(target: string, init?: RequestInit): Promise<Response>
  /** Asks, and returns when the request waits for what comes next. */
  wait(target: string, init?: RequestInit): Promise<{ readonly answer: Promise<Response> }>
}

/** A rig with RRR's push; it is closed with the test. */
export async function startRrrRig(
  config: Partial<RrrConfig> = {},
  options: Partial<RigOptions> & { readonly rrr?: Partial<RrrOptions> } = {},
): Promise<RrrRig> {
  let made: ReturnType<typeof registerRrr> | undefined
  const rig = await startRig({
    ...options,
    register: async (app, delivery) => {
      await options.register?.(app, delivery)
      made = registerRrr(app, { ...delivery, ...options.rrr, config: { ...rrrDefaults, ...config } })
    },
  })
  if (!made) throw new Error('nothing is registered')
  const rrr = made
  onTestFinished(async () => {
    rrr.close()
    await rig.close()
  })
  const ask: RrrRig['ask'] = (target, init) => fetch(`${rig.url}${target}`, init)
  return {
    ...rig,
    rrr,
    ask,
    wait: async (target, init) => {
      const { length } = rig.attendances
      const answer = ask(target, init)
      // It is subscribed when it has looked through what there is.
      await eventually(() => rig.attendances.length > length && rig.hub.counters.subscribers > 0)
      return { answer }
    },
  }
}

export interface RrrSocketRig extends Rig {
  readonly route: SocketEndpoint
  /** What was published, by whomever. */
  readonly published: Message[]
  /** Connects; not open yet. */
  connect(path: string, options?: ClientOptions): RrrClient
}

/** A plain client that keeps what it is sent. */
export class RrrClient extends WebSocket {
  readonly texts: string[] = []
  readonly blobs: Buffer[] = []
  closedWith: { readonly code: number; readonly reason: string } | undefined
  /** The status of a refused handshake. */
  refusedWith: number | undefined

  constructor(url: string, options: ClientOptions & { readonly protocols?: string[] } = {}) {
    super(url, options.protocols ?? [], options)
    this.on('message', (data: Buffer, isBinary) => {
      if (isBinary) this.blobs.push(data)
      else this.texts.push(data.toString())
    })
    this.on('close', (code, reason) => {
      this.closedWith = { code, reason: reason.toString() }
    })
    this.on('unexpected-response', (_request, response) => {
      this.refusedWith = response.statusCode
      response.resume()
    })
    this.on('error', () => {})
    onTestFinished(() => this.terminate())
  }

  async opened(): Promise<this> {
    await eventually(() => this.readyState !== WebSocket.CONNECTING)
    expect(this.readyState).toBe(WebSocket.OPEN)
    return this
  }
}

/** A rig with the endpoint of RRR's WebSockets; it is closed with the test. */
export async function startRrrSocketRig(
  config: Partial<RrrConfig> = {},
  options: Partial<RigOptions> & { readonly socket?: Partial<RrrSocketOptions> } = {},
): Promise<RrrSocketRig> {
  const resolveClient = compileClientResolver([])
  const published: Message[] = []
  let made: SocketEndpoint | undefined
  const rig = await startRig({
    register: () => {},
    ...options,
    onUpgrade: delivery => {
      const { publisher } = delivery.push
      const push = {
        ...delivery.push,
        publisher: {
          connected: true,
          publish: (sent: Message) => {
            published.push(sent)
            return publisher.publish(sent)
          },
        },
      }
      const route = createRrrSocketRoute({
        ...{ ...delivery, push, closeTimeout: 500, topic: { topicLevels: 32, topicLength: 1024 } },
        ...options.socket,
        config: { ...rrrDefaults, ...config },
      })
      made = route
      const { log, metrics } = delivery
      const router = new UpgradeRouter({
        routes: [{ ...route, allowsOrigin: () => true }],
        limits: new ConnectionLimits({ connections: 1000, connectionsPerAddress: 1000 }),
        users: new UserLimits('off'),
        ...{ urlLength: 8192, resolveClient, log, metrics },
        nextId: () => '1',
      })
      return (request, socket, head) => router.handle(request, socket, head)
    },
  })
  if (!made) throw new Error('there is no endpoint')
  const route = made
  onTestFinished(async () => {
    await Promise.all([route.close(100), rig.close()])
  })
  return {
    ...{ ...rig, route, published },
    connect: (path, more) => new RrrClient(`ws://127.0.0.1:${rig.port}${path}`, more),
  }
}
