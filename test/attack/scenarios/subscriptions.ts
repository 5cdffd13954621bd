import { either, openMqtt, publishPacket, repeat, send, sleep, subscribePacket } from './attacker.js'
import type { Scenario } from './scenario.js'

const deep = (client: number, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${client}/${index}${'/a'.repeat(30)}`)

/** Point 1: sessions that stay behind, each with 1000 filters of 32 levels. */
export const filtersOfManyLevels: Scenario = {
  name: 'filters-of-many-levels',
  run: (target, signal) => {
    let client = 0
    return repeat(signal, 50, async () => {
      const socket = await openMqtt(target, signal, {
        clientId: `deep-${target.address}-${client++ % 100}`,
        clean: false,
      })
      await send(socket, subscribePacket(deep(client % 100, 1000)), signal)
      await either(socket, ['close', 'data'], signal)
      socket.destroy()
      return 1
    })
  },
}

/** Point 1: the same by clients that stay, twenty of them. */
export const filtersOfConnectedClients: Scenario = {
  name: 'filters-of-connected-clients',
  run: (target, signal) =>
    repeat(signal, 100, async () => {
      const sockets = []
      for (let client = 0; client < 20 && !signal.aborted; client++) {
        const socket = await openMqtt(target, signal)
        sockets.push(socket)
        await send(socket, subscribePacket(deep(client, 1000)), signal)
      }
      await sleep(1000, signal)
      for (const socket of sockets) socket.destroy()
      return sockets.length
    }),
}

/** Point 7: 17 clients with filters that all match one topic, and 100 messages in one write. */
export const overlappingFilters: Scenario = {
  name: 'overlapping-filters',
  run: async (target, signal) => {
    const names = Array.from({ length: 2 ** 14 }, (_, bits) =>
      Array.from({ length: 14 }, (_, level) => ((bits >> level) & 1 ? '+' : 'a')).join('/'),
    )
    const sockets = []
    for (let client = 0; client < 17 && !signal.aborted; client++) {
      const socket = await openMqtt(target, signal)
      sockets.push(socket)
      await send(socket, subscribePacket(names.slice(client * 960, (client + 1) * 960)), signal)
    }
    const publisher = await openMqtt(target, signal)
    const burst = Buffer.concat(Array.from({ length: 100 }, () => publishPacket(Array(14).fill('a').join('/'), 'x')))
    const sent = await repeat(signal, 500, async () => {
      await send(publisher, burst, signal)
      return 100
    })
    for (const socket of [...sockets, publisher]) socket.destroy()
    return sent
  },
}

/** Point 14: SUBSCRIBEs of 128 KiB, twenty in one write. */
export const bigSubscribes: Scenario = {
  name: 'big-subscribes',
  run: (target, signal) =>
    repeat(signal, 300, async () => {
      const socket = await openMqtt(target, signal)
      const filters = Array.from({ length: 20_000 }, (_, index) => `${index % 1000}`)
      const burst = Buffer.concat(Array.from({ length: 20 }, (_, index) => subscribePacket(filters, index + 1)))
      await send(socket, burst, signal)
      await sleep(300, signal)
      socket.destroy()
      return 20
    }),
}

/** Neighbour of point 7: subscribing and unsubscribing as fast as the gateway takes it. */
export const churnOfFilters: Scenario = {
  name: 'churn-of-filters',
  run: async (target, signal) => {
    const socket = await openMqtt(target, signal)
    let round = 0
    const sent = await repeat(signal, 20, async () => {
      const filters = Array.from({ length: 500 }, (_, index) => `churn/${round++ % 5000}/${index}/#`)
      await send(socket, subscribePacket(filters), signal)
      return filters.length
    })
    socket.destroy()
    return sent
  },
}
