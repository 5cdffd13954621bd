import { once } from 'node:events'
import { request as requestHttp1 } from 'node:http'
import { connect as connectHttp2, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2'
import mqtt from 'mqtt'
import { onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import { EventStreamParser } from './sse-parser.js'

/** An event as a client got it. */
export interface ReceivedEvent {
  /** `undefined` over MQTT, which has none. */
  readonly id: string | undefined
  readonly topic: string
  readonly payload: Buffer
  readonly retained: boolean
}

/** Somebody who listens, on whatever transport. */
export interface EventClient {
  readonly events: ReceivedEvent[]
  /** Reasons of the gaps that it was told of. */
  readonly gaps: string[]
  /** Where to go on; `undefined` over MQTT, and before there is a place. */
  readonly cursor: string | undefined
  /** Resolves when it gets nothing more, for whatever reason. */
  readonly ended: Promise<void>
  close(): Promise<void>
}

export interface Listening {
  readonly topics: readonly string[]
  readonly cursor?: string | undefined
}

/** Where a gateway listens. */
export interface Urls {
  readonly http: string
  readonly https: string
}

/** Begins to listen; resolves when whatever is published from then on will come. */
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
  // It may be closed without an error, when the connection is.
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
      // The first one is behind everything that was there.
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

/** Asks again and again, as a page does. */
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
  // After one answer there is a place, from which on nothing is missed.
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
  const socket = new WebSocket(`${urls.http.replace('http', 'ws')}/v1/socket?${queryOf(listening)}`)
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

/** Has no ids: what it gets is what the broker has. */
const listenByMqtt: Listen = async (urls, { topics }) => {
  const events: ReceivedEvent[] = []
  const client = await mqtt.connectAsync(`${urls.http.replace('http', 'ws')}/mqtt`, { reconnectPeriod: 0 })
  client.on('message', (topic, payload, { retain }) => events.push({ id: undefined, topic, payload, retained: retain }))
  await client.subscribeAsync([...topics], { qos: 1 })
  const ended = new Promise<void>(resolve => client.once('close', resolve))
  return { events, gaps: [], cursor: undefined, ended, close: () => client.endAsync(true) }
}

/** Somebody who comes back whenever the connection breaks, and goes on where they were. */
export interface LastingClient {
  /** Of all connections. */
  readonly events: readonly ReceivedEvent[]
  /** The newest of them. */
  readonly latest: ReceivedEvent | undefined
  readonly gaps: readonly string[]
  /** How often it has had to come back. */
  readonly returns: number
  close(): Promise<void>
}

/** Begins to listen, and comes back at once whenever that ends, until it is closed. */
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

/** Every transport by which a client gets events with ids. */
export const pushTransports: Readonly<Record<string, Listen>> = {
  'an event stream': listenToStream(overHttp1),
  'an event stream over HTTP/2': listenToStream(overHttp2),
  'long-polls': listenByPolls,
  'a socket': listenBySocket,
}

/** Every transport there is. */
export const allTransports: Readonly<Record<string, Listen>> = { 'MQTT over /mqtt': listenByMqtt, ...pushTransports }

/** One client on each transport that comes back whenever it has to; closed with the test. */
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

/** What a client got, as text. */
export const payloadsOf = ({ events }: LastingClient): string[] => events.map(({ payload }) => payload.toString())
