import type { Socket } from 'node:net'
import { ask, either, httpPort, openHttp2, openTcp, repeat, requestText, send, sleep } from './attacker.js'
import type { Scenario } from './scenario.js'

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
