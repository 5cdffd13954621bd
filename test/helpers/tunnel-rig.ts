import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import net, { type AddressInfo } from 'node:net'
import { pino } from 'pino'
import { generate } from 'selfsigned'
import { WebSocket } from 'ws'
import type { ConnectedClients } from '../../src/base/connected-clients.js'
import { GatewayError } from '../../src/base/errors.js'
import type { Identity } from '../../src/base/identity.js'
import { createMetrics } from '../../src/base/metrics.js'
import { createUpstream } from '../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../src/config/schema.js'
import { acceptWebSocket, chooseSubprotocol, type WebSocketEndpointOptions } from '../../src/tunnel/endpoints.js'
import { Tunnels } from '../../src/tunnel/tunnels.js'
import { readHandshake } from '../../src/websocket/handshake.js'

/** A web server with one tunnel to a TCP server of the test, without the rest of the gateway. */
export interface TunnelRig {
  readonly url: string
  readonly port: number
  readonly tunnels: Tunnels
  readonly metrics: ReturnType<typeof createMetrics>
  /** The refusals, in order. */
  readonly refusals: GatewayError[]
  /** The accepted connections of the broker's side, newest last. */
  readonly brokerSockets: net.Socket[]
  /** Opens a WebSocket with `ws`; binary, without limits and checks. */
  connect(subprotocols?: string[], options?: WebSocketClientOptions): WebSocket
  /** The value of a metric with these labels. */
  count(name: string, labels: Record<string, string>): Promise<number>
  close(): Promise<void>
}

type WebSocketClientOptions = ConstructorParameters<typeof WebSocket>[2] & object

const defaults: Omit<WebSocketEndpointOptions, 'broker'> = {
  subprotocols: ['mqtt', 'mqttv3.1'],
  requireSubprotocol: false,
  forceSubprotocol: undefined,
  inspectConnect: false,
  connectTimeout: 10_000,
  connectSize: 65_536,
  pingInterval: 'off',
  closeTimeout: 5000,
}

/**
 * @param onBroker called with each connection to the broker
 * @param options changes of the endpoint's options
 * @param tls serve wss instead of ws
 * @param known the rate limit, the identity and the list of clients, otherwise from the gateway
 */
export async function startTunnelRig(
  onBroker: (socket: net.Socket) => void,
  options: Partial<WebSocketEndpointOptions> = {},
  tls = false,
  known: {
    readonly bytesPerSecond?: number
    readonly identity?: Identity
    readonly clients?: ConnectedClients
  } = {},
): Promise<TunnelRig> {
  const brokerSockets: net.Socket[] = []
  const brokerServer = net.createServer({ allowHalfOpen: true, noDelay: true }, socket => {
    brokerSockets.push(socket)
    socket.on('error', () => {})
    onBroker(socket)
  })
  await once(brokerServer.listen(0, '127.0.0.1'), 'listening')
  const brokerPort = (brokerServer.address() as AddressInfo).port

  const log = pino({ level: 'silent' })
  const broker = createUpstream(upstreamAt(`mqtt://127.0.0.1:${brokerPort}`), log)
  const metrics = createMetrics()
  const tunnels = new Tunnels(metrics, known.bytesPerSecond ?? 'off', known.clients)
  const refusals: GatewayError[] = []
  const endpoint = { ...defaults, broker, ...options }
  const webServer = tls ? https.createServer({ ...(await certificate()), allowHalfOpen: true }) : http.createServer()
  webServer.on('upgrade', (request: http.IncomingMessage, socket: net.Socket, head: Buffer) => {
    socket.on('error', () => {})
    const peer = {
      address: '127.0.0.1',
      port: socket.remotePort ?? 0,
      localAddress: '127.0.0.1',
      localPort: 0,
      ...(known.identity && { identity: known.identity }),
    }
    const accept = async (): Promise<void> => {
      const { key, subprotocols } = readHandshake(request)
      const subprotocol = chooseSubprotocol(endpoint, subprotocols)
      await acceptWebSocket(endpoint, tunnels, { socket, head, key, subprotocol, peer, log })
    }
    accept().catch(error => {
      const refusal = GatewayError.from(error)
      refusals.push(refusal)
      socket.end(`HTTP/1.1 ${refusal.httpStatus} Refused\r\nConnection: close\r\n\r\n`)
    })
  })
  await once(webServer.listen(0, '127.0.0.1'), 'listening')
  const { port } = webServer.address() as AddressInfo
  const url = `${tls ? 'wss' : 'ws'}://127.0.0.1:${port}/mqtt`

  return {
    url,
    port,
    tunnels,
    metrics,
    refusals,
    brokerSockets,
    connect: (subprotocols = ['mqtt'], clientOptions = {}) =>
      new WebSocket(url, subprotocols, {
        rejectUnauthorized: false,
        perMessageDeflate: false,
        maxPayload: 0,
        ...clientOptions,
      }),
    count: async (name, labels) => {
      const metric = await metrics.registry.getSingleMetric(name)?.get()
      const wanted = Object.entries(labels)
      return metric?.values.find(value => wanted.every(([key, label]) => value.labels[key] === label))?.value ?? 0
    },
    close: async () => {
      await tunnels.close(100)
      await broker.close()
      for (const socket of brokerSockets) socket.destroy()
      webServer.closeAllConnections()
      await Promise.all([webServer, brokerServer].map(server => new Promise(resolve => server.close(resolve))))
      metrics.close()
    },
  }
}

/** A key and a certificate for 127.0.0.1. */
async function certificate(): Promise<{ key: string; cert: string }> {
  const { private: key, cert } = await generate([{ name: 'commonName', value: '127.0.0.1' }], {
    keyType: 'ec',
    algorithm: 'sha256',
  })
  return { key, cert }
}
