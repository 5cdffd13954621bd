import { either, openMqtt, publishPacket, repeat, send, sleep, subscribePacket } from './attacker.js'
import type { Scenario } from './scenario.js'

/** Point 6: persistent sessions that nobody comes back for, and messages that match all of them. */
export const persistentSessions: Scenario = {
  name: 'persistent-sessions',
  run: async (target, signal) => {
    let client = 0
    const publisher = await openMqtt(target, signal)
    const sent = await repeat(signal, 10, async () => {
      const begun = Array.from({ length: 8 }, async () => {
        const socket = await openMqtt(target, signal, { clientId: `gone-${target.address}-${client++}`, clean: false })
        await send(socket, subscribePacket(['gone/#'], 1, 1), signal)
        await either(socket, ['data', 'close'], signal)
        socket.destroy()
      })
      await Promise.all(begun)
      await send(publisher, publishPacket('gone/x', 'x', { qos: 1 }), signal)
      return begun.length
    })
    publisher.destroy()
    return sent
  },
}

/** Point 8: what waits for a session whose client is away, 1 MiB each. */
export const bigQueuedMessages: Scenario = {
  name: 'big-queued-messages',
  run: async (target, signal) => {
    const payload = Buffer.alloc(2 ** 20)
    const absent = await openMqtt(target, signal, { clientId: `absent-${target.address}`, clean: false })
    await send(absent, subscribePacket(['absent/#'], 1, 1), signal)
    await either(absent, ['data', 'close'], signal)
    absent.destroy()
    const publisher = await openMqtt(target, signal)
    const sent = await repeat(signal, 50, async () => {
      await send(publisher, publishPacket('absent/x', payload, { qos: 1 }), signal)
      return 1
    })
    publisher.destroy()
    return sent
  },
}

/** Neighbour of point 8: subscribers that do not read, and a publisher that does not stop. */
export const deafSubscribers: Scenario = {
  name: 'deaf-subscribers',
  run: (target, signal) =>
    repeat(signal, 50, async () => {
      const deaf = []
      for (let index = 0; index < 10; index++) {
        const socket = await openMqtt(target, signal, { deaf: true })
        await send(socket, subscribePacket([`deaf/${target.address}`]), signal)
        deaf.push(socket)
      }
      const publisher = await openMqtt(target, signal)
      for (let index = 0; index < 40 && !signal.aborted; index++) {
        await send(publisher, publishPacket(`deaf/${target.address}`, Buffer.alloc(65_536)), signal)
        await sleep(10, signal)
      }
      for (const socket of [...deaf, publisher]) socket.destroy()
      return 40
    }),
}

/** Neighbour of point 6: one client id after the other is taken over, with a will each time. */
export const takeovers: Scenario = {
  name: 'takeovers',
  run: (target, signal) => {
    let before: { destroy(): unknown } | undefined
    return repeat(signal, 15, async () => {
      const socket = await openMqtt(target, signal, { clientId: `taken-${target.address}`, clean: false })
      before?.destroy()
      before = socket
      return 1
    }).finally(() => before?.destroy())
  },
}
