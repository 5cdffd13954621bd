import type { Socket } from 'node:net'
import {
  ask,
  httpPort,
  openHttp2,
  openMqtt,
  openRawWebSocket,
  openTcp,
  packet,
  publishPacket,
  repeat,
  requestText,
  send,
  sleep,
  subscribePacket,
  webSocketFrame,
} from './attacker.js'
import type { Scenario } from './scenario.js'

/** Messages of QoS 2 whose PUBREL never comes, 200 KiB each, each under an identifier of its own. */
export const unreleasedMessages: Scenario = {
  name: 'unreleased-messages',
  run: (target, signal) => {
    const payload = Buffer.alloc(200_000)
    let client = 0
    return repeat(signal, 50, async () => {
      const socket = await openMqtt(target, signal, { clientId: `two-${target.address}-${client++}`, clean: false })
      for (let messageId = 1; messageId <= 50 && !signal.aborted; messageId++) {
        const fields = {
          cmd: 'publish',
          topic: 'two/x',
          payload,
          qos: 2,
          dup: false,
          retain: false,
          messageId,
        } as const
        await send(socket, packet(fields), signal)
        await sleep(5, signal)
      }
      socket.destroy()
      return 50
    })
  },
}

/** Many subscribers that do not read, each with messages of its own waiting. */
export const manyDeafSubscribers: Scenario = {
  name: 'many-deaf-subscribers',
  run: async (target, signal) => {
    const publisher = await openMqtt(target, signal)
    const payload = Buffer.alloc(120_000)
    const deaf: Socket[] = []
    const sent = await repeat(signal, 20, async () => {
      const topic = `deaf/${target.address}/${deaf.length}`
      const socket = await openMqtt(target, signal, { deaf: true })
      deaf.push(socket)
      await send(socket, subscribePacket([topic]), signal)
      await sleep(20, signal)
      for (let index = 0; index < 30; index++) await send(publisher, publishPacket(topic, payload), signal)
      while (deaf.length > 500) deaf.shift()?.destroy()
      return 30
    })
    for (const socket of [...deaf, publisher]) socket.destroy()
    return sent
  },
}

/** PUBLISH packets of 4 MiB that lack their last bytes. */
export const unfinishedPackets: Scenario = {
  name: 'unfinished-packets',
  run: async (target, signal) => {
    const bytes = publishPacket('unfinished', Buffer.alloc(4 * 2 ** 20)).subarray(0, -100)
    const sockets: Socket[] = []
    const sent = await repeat(signal, 20, async () => {
      const socket = await openMqtt(target, signal)
      sockets.push(socket)
      await send(socket, bytes, signal)
      while (sockets.length > 100) sockets.shift()?.destroy()
      return 1
    })
    for (const socket of sockets) socket.destroy()
    return sent
  },
}

/** CONNECTs with wills of 60 KB, from clients that stay. */
export const bigWills: Scenario = {
  name: 'big-wills',
  run: async (target, signal) => {
    const sockets: Socket[] = []
    const will = { topic: 'will', payload: Buffer.alloc(60_000), qos: 1, retain: true } as const
    const login =
      target.username === undefined ? {} : { username: target.username, password: Buffer.from(target.password ?? '') }
    const sent = await repeat(signal, 10, async () => {
      const socket = await openTcp(target, target.mqttPort)
      const clientId = `will-${target.address}-${sockets.length}`
      await send(
        socket,
        packet({
          cmd: 'connect',
          clientId,
          protocolId: 'MQTT',
          protocolVersion: 4,
          clean: true,
          keepalive: 0,
          will,
          ...login,
        }),
        signal,
      )
      sockets.push(socket)
      while (sockets.length > 500) sockets.shift()?.destroy()
      return 1
    })
    for (const socket of sockets) socket.destroy()
    return sent
  },
}

/** As many sockets as the gateway takes of one address, with nothing sent on them. */
export const idleSockets: Scenario = {
  name: 'idle-sockets',
  run: async (target, signal) => {
    const sockets: Socket[] = []
    const ports = [
      httpPort(target),
      target.mqttPort,
      ...(target.https === '' ? [] : [Number(new URL(target.https).port)]),
    ]
    const sent = await repeat(signal, 10, async () => {
      if (sockets.filter(socket => !socket.destroyed).length > 4000) return 0
      const opened = await Promise.all(
        Array.from({ length: 40 }, (_, index) => openTcp(target, ports[index % ports.length] ?? target.mqttPort)),
      )
      sockets.push(...opened)
      return opened.length
    })
    for (const socket of sockets) socket.destroy()
    return sent
  },
}

/** Event streams that begin with the oldest event of the journal, again and again. */
export const replays: Scenario = {
  name: 'replays',
  run: async (target, signal) => {
    const publisher = await openMqtt(target, signal)
    for (let index = 0; index < 20; index++) {
      const burst = Array.from({ length: 250 }, (_, one) => publishPacket(`replay/${one}`, Buffer.alloc(200)))
      await send(publisher, Buffer.concat(burst), signal)
      await sleep(20, signal)
    }
    publisher.destroy()
    return repeat(signal, 100, async () => {
      const sockets = await Promise.all(Array.from({ length: 20 }, () => openTcp(target, httpPort(target))))
      const request = requestText(target, 'GET', '/v1/events?topic=replay/%2B&last=5000')
      await Promise.all(sockets.map(socket => send(socket, request, signal)))
      await sleep(200, signal)
      for (const socket of sockets) socket.destroy()
      return sockets.length
    })
  },
}

/** RRR: each request for another handle. */
export const sweepOfHandles: Scenario = {
  name: 'sweep-of-handles',
  run: (target, signal) => {
    let handle = 0
    return repeat(signal, 100, async () => {
      const socket = await openTcp(target, httpPort(target))
      for (let index = 0; index < 20; index++) {
        await send(socket, requestText(target, 'GET', `/rrr/?handle=sweep-${target.address}-${handle++}`), signal)
      }
      await sleep(100, signal)
      socket.destroy()
      return 20
    })
  },
}

/** Polls under a new name each time, with a hundred filters. */
export const sweepOfDevices: Scenario = {
  name: 'sweep-of-devices',
  run: (target, signal) => {
    let device = 0
    const topics = Array.from({ length: 100 }, (_, index) => `topic=sweep/${index}`).join('&')
    return repeat(signal, 10, async () => {
      await ask(target, signal, 'GET', `/v1/poll?${topics}&timeout=0&device=sweep${device++}`)
      return 1
    })
  },
}

/** Small messages as fast as the gateway takes them. */
export const publishFlood: Scenario = {
  name: 'publish-flood',
  run: async (target, signal) => {
    const publisher = await openMqtt(target, signal)
    const burst = Buffer.concat(Array.from({ length: 1000 }, () => publishPacket('flood/x', Buffer.alloc(50))))
    const sent = await repeat(signal, 5, async () => {
      await send(publisher, burst, signal)
      return 1000
    })
    publisher.destroy()
    return sent
  },
}

/** Receipts that nobody will give, asked for with each publish. */
export const awaitedReceipts: Scenario = {
  name: 'awaited-receipts',
  run: async (target, signal) => {
    const from = Array.from({ length: 1000 }, (_, index) => `device-${index}`)
    const message = JSON.stringify({ type: 'publish', topic: 'asked', payload: 'x', receipt: { from, within: '10s' } })
    const socket = await openRawWebSocket(target, '/v1/socket', signal)
    const sent = await repeat(signal, 20, async () => {
      await send(socket, webSocketFrame(Buffer.from(message)), signal)
      return from.length
    })
    socket.destroy()
    return sent
  },
}

/** HTTP/2: headers that are continued without end (CONTINUATION), and settings and pings by the thousand. */
export const controlFramesOfHttp2: Scenario = {
  name: 'control-frames-of-http2',
  run: (target, signal) =>
    repeat(signal, 100, async () => {
      const session = await openHttp2(target, signal)
      if (session === undefined) return 0
      for (let index = 0; index < 500 && !session.destroyed; index++) {
        session.ping(() => {})
        if (index % 10 === 0) session.settings({ initialWindowSize: 65_535 + index })
      }
      await sleep(100, signal)
      session.destroy()
      return 550
    }),
}
