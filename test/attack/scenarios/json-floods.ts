import {
  either,
  httpPort,
  openRawWebSocket,
  openTcp,
  repeat,
  requestText,
  send,
  sleep,
  webSocketFrame,
} from './attacker.js'
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

/** Has each of so many attackers do `round` with its index, and again after a pause; they begin one after the other. */
async function repeatAll(
  signal: AbortSignal,
  attackers: number,
  pause: number,
  round: (index: number) => Promise<number>,
): Promise<number> {
  const attack = async (_: unknown, index: number): Promise<number> => {
    await sleep((index * pause) / attackers, signal)
    return repeat(signal, pause, () => round(index))
  }
  const sent = await Promise.all(Array.from({ length: attackers }, attack))
  return sent.reduce((sum, count) => sum + count, 0)
}

async function post(target: AttackTarget, body: string, signal: AbortSignal): Promise<number> {
  const socket = await openTcp(target, httpPort(target))
  const headers = { Connection: 'close', 'Content-Type': 'application/json' }
  await send(socket, requestText(target, 'POST', '/v1/publish', headers, body), signal)
  await either(socket, ['close'], signal)
  socket.destroy()
  return 1
}

/** Point 14 over HTTP: forty large JSON documents, which take long to parse. */
export const jsonBodies: Scenario = {
  name: 'json-bodies',
  run: (target, signal) => {
    const bodies = [documents.nested, documents.shapes, documents.members]
    return repeatAll(signal, 40, 3000, index => post(target, bodies[index % bodies.length] ?? '', signal))
  },
}

/** Point 14 over WebSockets: the same, and subscriptions to forty thousand topics. */
export const jsonMessages: Scenario = {
  name: 'json-messages',
  run: (target, signal) => {
    const bodies = [documents.nested, documents.shapes, documents.members, documents.topics]
    const frames = bodies.map(body => webSocketFrame(Buffer.from(body)))
    return repeatAll(signal, 40, 3000, async index => {
      const socket = await openRawWebSocket(target, '/v1/socket', signal)
      await send(socket, frames[index % frames.length] ?? '', signal)
      // Its answer, an error.
      await either(socket, ['data', 'close'], signal)
      socket.destroy()
      return 1
    })
  },
}

/** Neighbour: queries of the greatest length with as many parameters as there is room for. */
export const longQueries: Scenario = {
  name: 'long-queries',
  run: (target, signal) => {
    const queries = [`topic=${'a&topic='.repeat(950)}b`, 'a&'.repeat(3900), `topic=a&${'%61&'.repeat(1900)}`]
    return repeatAll(signal, 20, 1000, async index => {
      const path = `${index % 2 === 0 ? '/v1/events' : '/v1/poll'}?`
      const socket = await openTcp(target, httpPort(target))
      for (let sent = 0; sent < 20; sent++) {
        await send(socket, requestText(target, 'GET', path + queries[sent % queries.length]), signal)
      }
      await either(socket, ['data', 'close'], signal)
      socket.destroy()
      const webSocket = await openRawWebSocket(target, `/v1/socket?${queries[index % queries.length]}`, signal)
      webSocket.destroy()
      return 21
    })
  },
}

/** Neighbour: a body in chunks of one byte, which take a hundred times as much where each is kept. */
export const tinyChunks: Scenario = {
  name: 'tiny-chunks',
  run: (target, signal) => {
    const chunks = '1\r\nx\r\n'.repeat(10_000)
    const headers = { 'Transfer-Encoding': 'chunked', 'Content-Type': 'text/plain' }
    return repeatAll(signal, 10, 2000, async () => {
      const socket = await openTcp(target, httpPort(target))
      await send(socket, requestText(target, 'POST', '/v1/publish?topic=attack/chunks', headers), signal)
      for (let sent = 0; sent < 90 && !socket.destroyed && !signal.aborted; sent++) await send(socket, chunks, signal)
      await sleep(500, signal)
      socket.destroy()
      return 1
    })
  },
}
