import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import mqtt, { type MqttClient } from 'mqtt'
import { onTestFinished } from 'vitest'
import { WebSocket } from 'ws'

/** Credentials and options of a WebSocket handshake. */
export interface Presented {
  readonly headers?: Readonly<Record<string, string>>
  /** The first offered subprotocol. Default: `mqtt`. */
  readonly protocol?: string
  /** Further offered subprotocols. */
  readonly subprotocols?: readonly string[]
  /** The query of the URL, with its question mark. */
  readonly query?: string
  readonly cert?: string
  readonly key?: string
  /** The local address of the connection. */
  readonly localAddress?: string
}

/** The response to a handshake. */
export interface Answer {
  readonly status: number
  readonly text: string
  readonly headers: IncomingHttpHeaders
}

function open(url: string, { protocol = 'mqtt', subprotocols = [], query = '', ...options }: Presented): WebSocket {
  const client = new WebSocket(url + query, [protocol, ...subprotocols], { ...options, rejectUnauthorized: false })
  client.on('error', () => {})
  return client
}

/** Performs a handshake; an opened WebSocket is closed with the test. */
export async function handshake(url: string, presented: Presented = {}): Promise<Answer & { client: WebSocket }> {
  const client = open(url, presented)
  onTestFinished(() => client.terminate())
  return new Promise((resolve, reject) => {
    client.on('upgrade', ({ headers }) => resolve({ status: 101, text: '', headers, client }))
    client.on('unexpected-response', async (_request, response) => {
      const text: Buffer[] = []
      for await (const chunk of response) text.push(chunk)
      resolve({
        status: response.statusCode ?? 0,
        text: String(Buffer.concat(text)),
        headers: response.headers,
        client,
      })
    })
    client.on('error', reject)
  })
}

/** Connects MQTT.js with the credentials; closed with the test. */
export async function mqttThrough(url: string, presented: Presented = {}, login = {}): Promise<MqttClient> {
  const client = await mqtt.connectAsync(url, {
    ...login,
    reconnectPeriod: 0,
    createWebsocket: () => {
      const socket = open(url, presented)
      socket.binaryType = 'nodebuffer'
      return socket
    },
  })
  onTestFinished(() => void client.end(true))
  return client
}

/** Resolves to the close code and reason of a WebSocket at its end. */
export async function closeOf(client: WebSocket): Promise<{ code: number; reason: string }> {
  const [code, reason] = await once(client, 'close')
  return { code, reason: String(reason) }
}
