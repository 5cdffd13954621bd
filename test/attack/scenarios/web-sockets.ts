import type { Socket } from 'node:net'
import {
  openMqtt,
  openRawWebSocket,
  openWebSocket,
  publishPacket,
  repeat,
  send,
  sleep,
  webSocketFrame,
} from './attacker.js'
import type { Scenario } from './scenario.js'

/** Point 4: eighty sockets with a fragmented message that does not come to its end. */
export const unfinishedMessages: Scenario = {
  name: 'unfinished-messages',
  run: async (target, signal) => {
    const sockets: Socket[] = []
    const begin = webSocketFrame(Buffer.alloc(2 ** 20 - 100, 'x'), { isFinal: false })
    const sent = await repeat(signal, 20, async () => {
      const socket = await openRawWebSocket(target, '/v1/socket', signal)
      await send(socket, begin, signal)
      sockets.push(socket)
      if (sockets.length > 80) sockets.shift()?.destroy()
      return 1
    })
    for (const socket of sockets) socket.destroy()
    return sent
  },
}

/** Point 5: `send` to the connection's own topic, which needs no right to publish. */
export const ownTopicFlood: Scenario = {
  name: 'own-topic-flood',
  run: async (target, signal) => {
    const payload = 'x'.repeat(60_000)
    const message = webSocketFrame(Buffer.from(JSON.stringify({ type: 'send', payload, qos: 0 })))
    const sent = await repeat(signal, 100, async () => {
      const socket = await openRawWebSocket(target, '/v1/socket', signal)
      for (let index = 0; index < 40 && !signal.aborted; index++) {
        await send(socket, message, signal)
        await sleep(5, signal)
      }
      socket.destroy()
      return 40
    })
    return sent
  },
}

/** Point 5: the same by RRR's plain WebSockets. */
export const rrrFlood: Scenario = {
  name: 'rrr-flood',
  run: (target, signal) => {
    const message = webSocketFrame(Buffer.alloc(60_000, 'x'))
    return repeat(signal, 100, async () => {
      const socket = await openRawWebSocket(target, '/rrr/x', signal)
      for (let index = 0; index < 40 && !signal.aborted; index++) {
        await send(socket, message, signal)
        await sleep(5, signal)
      }
      socket.destroy()
      return 40
    })
  },
}

/** Neighbour: sockets that come and go, with presence for each. */
export const comingAndGoing: Scenario = {
  name: 'coming-and-going',
  run: (target, signal) => {
    let device = 0
    return repeat(signal, 20, async () => {
      const socket = await openWebSocket(target, `/v1/socket?topic=rooms/%23&device=d${device++}`, signal)
      socket?.terminate()
      return 1
    })
  },
}

/** Neighbour: tiny fragments and pings, thousands in one write. */
export const tinyFrames: Scenario = {
  name: 'tiny-frames',
  run: (target, signal) => {
    const pings = Buffer.concat(Array.from({ length: 5000 }, () => webSocketFrame(Buffer.alloc(0), { opcode: 9 })))
    const fragment = webSocketFrame(Buffer.from('x'), { opcode: 0, isFinal: false })
    const fragments = Buffer.concat([
      webSocketFrame(Buffer.from('x'), { isFinal: false }),
      ...Array.from({ length: 20_000 }, () => fragment),
    ])
    return repeat(signal, 100, async () => {
      for (const path of ['/mqtt', '/v1/socket', '/rrr/x']) {
        const socket = await openRawWebSocket(target, path, signal)
        await send(socket, pings, signal)
        await send(socket, fragments, signal)
        await sleep(50, signal)
        socket.destroy()
      }
      return 75_000
    })
  },
}

/** Point 13: topics that would forge a line of the log, refused or not. */
export const forgedLogLines: Scenario = {
  name: 'forged-log-lines',
  run: (target, signal) =>
    repeat(signal, 50, async () => {
      const socket = await openMqtt(target, signal)
      await send(socket, publishPacket('a\n[12:00:00] INFO: forged\u001b[2K', 'x'), signal)
      await sleep(20, signal)
      socket.destroy()
      return 1
    }),
}
