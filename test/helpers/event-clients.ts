import { once } from 'node:events'
import { request as requestHttp1 } from 'node:http'
import { connect as connectHttp2, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2'
import mqtt from 'mqtt'
import { onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { EventStreamParser } from './sse-parser.js'

/** An event as received by a client. */
export interface ReceivedEvent {
  /** `undefined` over MQTT, which has no ids. */
  readonly id: string | undefined
  readonly topic: string
  readonly payload: Buffer
  readonly retained: boolean
}

/** A subscriber on any transport. */
export interface EventClient {
  readonly events: ReceivedEvent[]
  /** Reasons of its gaps. */
  readonly gaps: string[]
  /** The cursor to continue from; `undefined` over MQTT, and before the first one. */
  readonly cursor: string | undefined
  /** Resolves when it has ended, for any reason. */
  readonly ended: Promise<void>
  close(): Promise<void>
}

export interface Listening {
  readonly topics: readonly string[]
  readonly cursor?: string | undefined
}

/** Addresses of a gateway. */
export interface Urls {
  readonly http: string
  readonly https: string
}

/** Subscribes; resolves when it will receive all further messages. */
export type Listen = (urls: Urls, listening: Listening) => Promise<EventClient>

interface EventJson {
  readonly id: string
  readonly topic: string
  readonly payload?: string
  readonly payloadBase64?: string
  readonly retained?: boolean
}

interface PollAnswer {
  readonly events: readonly EventJson[]
  readonly cursor: string
  readonly gap: { readonly reason: string } | null
}

function received({ id, topic, payload, payloadBase64, retained = false }: EventJson): ReceivedEvent {
  const bytes = payload === undefined ? Buffer.from(payloadBase64 ?? '', 'base64') : Buffer.from(payload)
  return { id, topic, payload: bytes, retained }
}

function queryOf({ topics, cursor }: Listening, more: Record<string, string> = {}): string {
  const query = new URLSearchParams(more)
  for (const topic of topics) query.append('topic', topic)
  if (cursor !== undefined) query.set('cursor', cursor)
  return query.toString()
}

interface Streaming {
  onData(take: (chunk: Buffer) => void): void
  onEnd(ended: () => void): void
  close(): void
}

type OpenStream = (urls: Urls, path: string) => Promise<Streaming>

const overHttp1: OpenStream = async (urls, path) => {
  const request = requestHttp1(`${urls.http}${path}`)
  request.on('error', () => {}).end()
  const [response] = await once(request, 'response')
  if (response.statusCode !== 200) throw new Error(`answered ${response.statusCode}`)
  response.on('error', () => {})
  return {
    onData: take => response.on('data', take),
    onEnd: ended => response.on('close', ended),
    close: () => request.destroy(),
  }
}

const overHttp2: OpenStream = async (urls, path) => {
  const session = connectHttp2(urls.https, { rejectUnauthorized: false })
  session.on('error', () => {})
  const stream = session.request({ ':path': path })
  // A closed connection may close it without an error.
  const headers = await new Promise<IncomingHttpHeaders & IncomingHttpStatusHeader>((resolve, reject) => {
    stream.on('error', reject)
    stream.on('close', () => reject(new Error('closed without an answer')))
    stream.on('response', resolve)
  })
  if (headers[':status'] !== 200) {
    session.destroy()
    throw new Error(`answered ${headers[':status']}`)
  }
  return {
    onData: take => stream.on('data', take),
    onEnd: ended => stream.on('close', ended),
    close: () => session.destroy(),
  }
}

function listenToStream(open: OpenStream): Listen {
  return async (urls, listening) => {
    const events: ReceivedEvent[] = []
    const gaps: string[] = []
    const parser = new EventStreamParser()
    let placed = (): void => {}
    parser.onEvent = ({ type, data }) => {
      if (type === 'message') events.push(received(JSON.parse(data)))
      else if (type === 'gap') gaps.push(JSON.parse(data).reason)
      else if (type === 'live') placed()
    }
    const stream = await open(urls, `/v1/events?${queryOf(listening)}`)
    const ended = new Promise<void>(resolve => stream.onEnd(resolve))
    await new Promise<void>((resolve, reject) => {
      stream.onEnd(() => reject(new Error('the stream ended')))
      // The first one follows all stored events.
      placed = resolve
      stream.onData(chunk => parser.push(chunk))
    })
    return {
      events,
      gaps,
      get cursor() {
        return parser.lastEventId === '' ? listening.cursor : parser.lastEventId
      },
      ended,
      close: async () => stream.close(),
    }
  }
}

/** Polls repeatedly, as a page does. */
const listenByPolls: Listen = async (urls, listening) => {
  const events: ReceivedEvent[] = []
  const gaps: string[] = []
  const leaving = new AbortController()
  let { cursor } = listening
  const ask = async (timeout: string): Promise<void> => {
    const response = await fetch(
      `${urls.http}/v1/poll?${queryOf({ ...listening, cursor }, { timeout, device: 'poller' })}`,
      { signal: leaving.signal },
    )
    if (response.status !== 200) throw new Error(`answered ${response.status}`)
    const answer = (await response.json()) as PollAnswer
    if (answer.gap) gaps.push(answer.gap.reason)
    events.push(...answer.events.map(received))
    cursor = answer.cursor
  }
  // The first response has a cursor, from which on no event is missed.
  await ask('0')
  const asking = (async () => {
    while (!leaving.signal.aborted) await ask('25')
  })().catch(() => {})
  return {
    events,
    gaps,
    get cursor() {
      return cursor
    },
    ended: asking,
    close: async () => {
      leaving.abort()
      await asking
    },
  }
}

const listenBySocket: Listen = async (urls, listening) => {
  const events: ReceivedEvent[] = []
  const gaps: string[] = []
  let cursor = listening.cursor
  const socket = new WebSocket(`${urls.http.replace('http', 'ws')}/v1/socket?${queryOf(listening)}`, {
    rejectUnauthorized: false,
  })
  const ended = new Promise<void>(resolve => socket.once('close', resolve))
  await new Promise<void>((resolve, reject) => {
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('the socket closed')))
    socket.on('message', data => {
      const message = JSON.parse(String(data))
      if (message.type === 'event') {
        events.push(received(message))
        if (!message.retained) cursor = message.id
      } else if (message.type === 'gap') gaps.push(message.reason)
      else if (message.type === 'live') {
        cursor = message.cursor
        resolve()
      }
    })
  })
  return {
    events,
    gaps,
    get cursor() {
      return cursor
    },
    ended,
    close: async () => {
      socket.terminate()
      await ended
    },
  }
}

/** Events have no ids: messages come directly from the broker. */
const listenByMqtt: Listen = async (urls, { topics }) => {
  const events: ReceivedEvent[] = []
  const client = await mqtt.connectAsync(`${urls.http.replace('http', 'ws')}/mqtt`, { reconnectPeriod: 0 })
  client.on('message', (topic, payload, { retain }) => events.push({ id: undefined, topic, payload, retained: retain }))
  await client.subscribeAsync([...topics], { qos: 1 })
  const ended = new Promise<void>(resolve => client.once('close', resolve))
  return { events, gaps: [], cursor: undefined, ended, close: () => client.endAsync(true) }
}

/** A subscriber that reconnects after each loss of its connection, and continues from its cursor. */
export interface LastingClient {
  /** Events of all connections. */
  readonly events: readonly ReceivedEvent[]
  /** The current connection. */
  readonly latest: ReceivedEvent | undefined
  readonly gaps: readonly string[]
  /** Number of reconnects. */
  readonly returns: number
  close(): Promise<void>
}

/** Subscribes, and reconnects at once after each end, until it is closed. */
export async function listenLasting(
  listen: Listen,
  urls: () => Urls,
  topics: readonly string[],
): Promise<LastingClient> {
  const past: EventClient[] = []
  let current = await listen(urls(), { topics })
  let closed = false
  const lasting = (async () => {
    while (!closed) {
      await current.ended
      if (closed) return
      past.push(current)
      const { cursor } = current
      const next = await comeBack(
        () => listen(urls(), { topics, cursor }),
        () => closed,
      )
      if (next === undefined) return
      current = next
    }
  })()
  const all = (): EventClient[] => (past.includes(current) ? past : [...past, current])
  return {
    get events() {
      return all().flatMap(({ events }) => events)
    },
    get latest() {
      return current.events.at(-1)
    },
    get gaps() {
      return all().flatMap(({ gaps }) => gaps)
    },
    get returns() {
      return past.length
    },
    close: async () => {
      closed = true
      await current.close()
      await lasting
      await current.close()
    },
  }
}

async function comeBack(connect: () => Promise<EventClient>, isOver: () => boolean): Promise<EventClient | undefined> {
  while (!isOver()) {
    const client = await connect().catch(() => undefined)
    if (client) return client
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  return undefined
}

/** All transports with event ids. */
export const pushTransports: Readonly<Record<string, Listen>> = {
  'an event stream': listenToStream(overHttp1),
  'an event stream over HTTP/2': listenToStream(overHttp2),
  'long-polls': listenByPolls,
  'a socket': listenBySocket,
}

/** All transports. */
export const allTransports: Readonly<Record<string, Listen>> = { 'MQTT over /mqtt': listenByMqtt, ...pushTransports }

/** One reconnecting subscriber on each transport; closed with the test. */
export async function listenEverywhere(
  urls: () => Urls,
  topics: readonly string[],
): Promise<Map<string, LastingClient>> {
  const clients = new Map<string, LastingClient>()
  for (const [name, listen] of Object.entries(pushTransports)) {
    clients.set(name, await listenLasting(listen, urls, topics))
  }
  onTestFinished(async () => {
    await Promise.all([...clients.values()].map(client => client.close()))
  })
  return clients
}

/** The received payloads of a client, as text. */
export const payloadsOf = ({ events }: LastingClient): string[] => events.map(({ payload }) => payload.toString())
