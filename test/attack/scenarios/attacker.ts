import { once } from 'node:events'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { connect, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { generate, type Packet } from 'mqtt-packet'
import WebSocket from 'ws'
import type { AttackTarget } from './scenario.js'

/** Calls `round` until `signal` is aborted, `pause` milliseconds apart. Resolves with the sum of what it returned. */
export async function repeat(signal: AbortSignal, pause: number, round: () => Promise<number>): Promise<number> {
  let sent = 0
  while (!signal.aborted) {
    sent += await round()
    await sleep(pause, signal)
  }
  return sent
}

/** Waits so many milliseconds, or until `signal` is aborted. */
export async function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  await wait(milliseconds, undefined, { signal }).catch(() => {})
}

/** A TCP connection from the attacker's address. What it receives is discarded. Never rejects: one that failed is destroyed. */
export async function openTcp({ address }: Pick<AttackTarget, 'address'>, port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: address, noDelay: true })
  socket.on('error', () => {})
  await once(socket, 'connect').catch(() => {})
  socket.resume()
  return socket
}

/** Writes, and waits until the gateway took it, the connection ended, or `signal` is aborted. */
export async function send(socket: Socket, bytes: string | Buffer, signal: AbortSignal): Promise<void> {
  if (socket.destroyed || !socket.writable) return
  if (socket.write(bytes)) return
  await either(socket, ['drain', 'close'], signal)
}

/** Waits for the first of the events, at most five seconds, and no longer than until `signal` is aborted. */
export async function either(
  emitter: NodeJS.EventEmitter,
  events: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const first = new AbortController()
  const any = AbortSignal.any([signal, first.signal, AbortSignal.timeout(5000)])
  await Promise.race(events.map(event => once(emitter, event, { signal: any }).catch(() => {})))
  first.abort()
}

/** An MQTT connection: a socket behind CONNACK. */
export interface MqttOptions {
  readonly clientId?: string
  readonly clean?: boolean
  /** Whether it does not read what the gateway sends, apart from CONNACK. */
  readonly deaf?: boolean
  /** Default: 4, which is MQTT 3.1.1. */
  readonly version?: 4 | 5
}

/** Connects and waits for CONNACK (or its end). Never rejects: a refused one is destroyed. */
export async function openMqtt(
  target: AttackTarget,
  signal: AbortSignal,
  { clientId = '', clean = true, deaf = false, version = 4 }: MqttOptions = {},
): Promise<Socket> {
  const socket = connect({ port: target.mqttPort, host: '127.0.0.1', localAddress: target.address, noDelay: true })
  socket.on('error', () => {})
  const { username, password } = target
  const login = username === undefined ? {} : { username, password: Buffer.from(password ?? '') }
  socket.write(
    generate(
      { cmd: 'connect', clientId, clean, protocolId: 'MQTT', protocolVersion: version, keepalive: 60, ...login },
      { protocolVersion: version },
    ),
  )
  await either(socket, ['data', 'close'], signal)
  if (deaf) socket.pause()
  else socket.resume()
  return socket
}

/** The bytes of a packet of MQTT 3.1.1. */
export function packet(fields: Packet): Buffer {
  return generate(fields, { protocolVersion: 4 })
}

export function subscribePacket(filters: readonly string[], messageId = 1, qos: 0 | 1 = 0): Buffer {
  return packet({ cmd: 'subscribe', messageId, subscriptions: filters.map(topic => ({ topic, qos })) })
}

export function publishPacket(
  topic: string,
  payload: string | Buffer,
  { retain = false, qos = 0 as 0 | 1, messageId = 1 } = {},
): Buffer {
  return packet({ cmd: 'publish', topic, payload, qos, dup: false, retain, ...(qos > 0 && { messageId }) })
}

/** Port and authority of the plain web server. */
export function httpPort({ http }: AttackTarget): number {
  return Number(new URL(http).port)
}

/** The text of a request over HTTP/1.1, with the attacker's credentials. */
export function requestText(
  target: AttackTarget,
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body = '',
): string {
  const all = { Host: new URL(target.http).host, ...authorization(target), ...headers }
  const length = body === '' ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }
  const lines = Object.entries({ ...all, ...length }).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`
}

/** One request over HTTP/1.1 on a connection of its own: its status, or 0 where there was no answer. */
export async function ask(
  target: AttackTarget,
  signal: AbortSignal,
  method: string,
  path: string,
  body = '',
  headers: Record<string, string> = {},
): Promise<number> {
  const socket = await openTcp(target, httpPort(target))
  let status = 0
  socket.once('data', (chunk: Buffer) => {
    status = Number(chunk.toString('latin1', 9, 12))
  })
  await send(socket, requestText(target, method, path, { Connection: 'close', ...headers }, body), signal)
  if (status === 0) await either(socket, ['data', 'close'], signal)
  socket.destroy()
  return status
}

export function authorization({ username, password }: AttackTarget): Record<string, string> {
  if (username === undefined) return {}
  return { Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` }
}

/** An open WebSocket, or `undefined` where the gateway refused. What it receives is discarded. */
export async function openWebSocket(
  target: AttackTarget,
  path: string,
  signal: AbortSignal,
): Promise<WebSocket | undefined> {
  const url = new URL(path, target.http)
  url.protocol = 'ws:'
  const socket = new WebSocket(url, {
    localAddress: target.address,
    headers: authorization(target),
    perMessageDeflate: false,
  })
  socket.on('error', () => {})
  await either(socket, ['open', 'close'], signal)
  if (socket.readyState === WebSocket.OPEN) return socket
  socket.terminate()
  return undefined
}

/** A WebSocket of which the attacker writes the frames itself: the TCP socket behind the 101. */
export async function openRawWebSocket(target: AttackTarget, path: string, signal: AbortSignal): Promise<Socket> {
  const socket = await openTcp(target, httpPort(target))
  const headers = {
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
  }
  await send(socket, requestText(target, 'GET', path, headers), signal)
  await either(socket, ['data', 'close'], signal)
  return socket
}

/** A frame of a client with a mask of zeros (RFC 6455 §5.2). */
export function webSocketFrame(payload: Buffer, { opcode = 1, isFinal = true } = {}): Buffer {
  const head = Buffer.alloc(14)
  head[0] = opcode | (isFinal ? 0x80 : 0)
  if (payload.length < 126) {
    head[1] = 0x80 | payload.length
    return Buffer.concat([head.subarray(0, 6), payload])
  }
  if (payload.length < 65_536) {
    head[1] = 0x80 | 126
    head.writeUInt16BE(payload.length, 2)
    return Buffer.concat([head.subarray(0, 8), payload])
  }
  head[1] = 0x80 | 127
  head.writeUInt32BE(payload.length, 6)
  return Buffer.concat([head, payload])
}

/** A TLS connection for HTTP/2, or `undefined` where the gateway has none or refused. */
export async function openTls(target: AttackTarget, signal: AbortSignal): Promise<TLSSocket | undefined> {
  if (target.https === '') return undefined
  const tcp = await openTcp(target, Number(new URL(target.https).port))
  const socket = connectTls({ socket: tcp, rejectUnauthorized: false, ALPNProtocols: ['h2'] })
  socket.on('error', () => {})
  await either(socket, ['secureConnect', 'close'], signal)
  if (socket.destroyed) return undefined
  return socket
}

/** A session of HTTP/2 over TLS, or `undefined` where the gateway has none or refused. */
export async function openHttp2(target: AttackTarget, signal: AbortSignal): Promise<ClientHttp2Session | undefined> {
  const socket = await openTls(target, signal)
  if (socket === undefined) return undefined
  const session = connectHttp2(target.https, { createConnection: () => socket })
  session.on('error', () => {})
  // Requests and pings wait for the connection.
  session.setMaxListeners(0)
  return session
}
