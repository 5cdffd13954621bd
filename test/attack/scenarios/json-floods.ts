import { connectRaw, connectRawSocket, pause, repeat, textFrame } from './raw-connection.js'
import type { AttackTarget, Scenario } from './scenario.js'

/** Less than `limits.bodySize`. */
const size = 1_000_000

const documents = {
  /** Takes 50 times as long to parse as a text of its length. */
  nested: `{"topic":"attack","json":${'['.repeat(size / 2 - 50)}${']'.repeat(size / 2 - 50)}}`,
  /** As many values as are taken, each a member of another name: the slowest that is parsed at all. */
  shapes: `{"topic":"","json":[${Array.from({ length: 16_000 }, (_, index) => `{"k${index}":0}`).join()}]}`,
  members: `{"topic":"attack",${Array.from({ length: 90_000 }, (_, index) => `"${index}":0`).join()}}`,
  topics: `{"type":"subscribe","topics":[${'"+/+/a",'.repeat(40_000)}"a"]}`,
}

async function post(target: AttackTarget, body: string, signal: AbortSignal): Promise<number> {
  const connection = await connectRaw(target, signal)
  const headers = `Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`
  await connection.write(`POST /v1/publish HTTP/1.1\r\n${headers}\r\n\r\n${body}`)
  await Promise.race([connection.ended(), pause(10_000, signal)])
  return 1
}

/** Forty large JSON documents at once over HTTP, which take long to parse. */
export const jsonBodies: Scenario = {
  name: 'json-bodies',
  run: (target, signal) => {
    const bodies = [documents.nested, documents.shapes, documents.members]
    return repeat(40, signal, index => post(target, bodies[index % bodies.length] ?? '', signal), 3000)
  },
}

/** The same over WebSockets, and subscriptions to forty thousand topics. */
export const jsonMessages: Scenario = {
  name: 'json-messages',
  run: (target, signal) => {
    const bodies = [documents.nested, documents.shapes, documents.members, documents.topics]
    const frames = bodies.map(body => textFrame(Buffer.from(body)))
    const attack = async (index: number): Promise<number> => {
      const socket = await connectRawSocket(target, '/v1/socket', signal)
      const frame = frames[index % frames.length] ?? Buffer.alloc(0)
      await socket.write(frame)
      await Promise.race([socket.until('"error"'), pause(10_000, signal)])
      await socket.end()
      return 1
    }
    return repeat(40, signal, attack, 3000)
  },
}

/** Queries of the greatest length with as many parameters as it has room for. */
export const longQueries: Scenario = {
  name: 'long-queries',
  run: (target, signal) => {
    const queries = [`topic=${'a&topic='.repeat(950)}b`, 'a&'.repeat(3900), `topic=a&${'%61&'.repeat(1900)}`]
    const attack = async (index: number): Promise<number> => {
      const connection = await connectRaw(target, signal)
      const path = ['/v1/events', '/v1/poll', '/v1/socket'][index % 3] ?? ''
      const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
      const headers = `Host: localhost\r\n${index % 3 === 2 ? `${upgrade}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n` : ''}`
      let sent = 0
      for (; sent < 20 && connection.isOpen; sent++) {
        const query = queries[sent % queries.length] ?? ''
        await connection.write(`GET ${path}?${query} HTTP/1.1\r\n${headers}\r\n`)
      }
      await Promise.race([connection.until('\r\n\r\n'), pause(10_000, signal)])
      await connection.end()
      return sent
    }
    return repeat(20, signal, attack, 1000)
  },
}
