import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import mqtt, { type MqttClient } from 'mqtt'
import { onTestFinished } from 'vitest'
import { WebSocket } from 'ws'

/** What a program presents with a WebSocket handshake. */
export interface Presented {
  readonly headers?: Readonly<Record<string, string>>
  /** The subprotocol that is offered first. Default: `mqtt`. */
  readonly protocol?: string
  /** Offered after it. */
  readonly subprotocols?: readonly string[]
  /** Of the URL, with its question mark. */
  readonly query?: string
  readonly cert?: string
  readonly key?: string
  /** The address to come from. */
  readonly localAddress?: string
}

/** How a handshake was answered. */
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

/** Shakes hands; what was opened ends with the test. */
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

/** Connects MQTT.js with what is presented; ended with the test. */
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

/** The close code and reason of a WebSocket that ends. */
export async function closeOf(client: WebSocket): Promise<{ code: number; reason: string }> {
  const [code, reason] = await once(client, 'close')
  return { code, reason: String(reason) }
}
