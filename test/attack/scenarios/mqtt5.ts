import type { Socket } from 'node:net'
import { acknowledgement, publishPacket, subscribePacket } from '../../conformance/packets.js'
import { openMqtt, repeat, send } from './attacker.js'
import type { Scenario } from './scenario.js'

/** Empty user properties of 64 KiB, of which each takes five bytes. */
const userProperties = Buffer.from('2600000000'.repeat(13_000), 'hex')

/** Every packet with as many user properties as there may be: publishing, subscribing, and acknowledging what was never sent. */
export const floodOfUserProperties: Scenario = {
  name: 'flood-of-user-properties',
  run: async (target, signal) => {
    const packets = [
      publishPacket('properties/x', '', { properties: userProperties }),
      acknowledgement('puback', 1, 0, userProperties),
      subscribePacket(1, ['properties/none'], userProperties),
    ]
    const sockets: Socket[] = []
    for (const _ of packets) sockets.push(await openMqtt(target, signal, { version: 5 }))
    const sent = await repeat(signal, 20, async () => {
      for (const [index, socket] of sockets.entries()) {
        const bytes = packets[index] ?? Buffer.alloc(0)
        await send(socket, Buffer.concat([bytes, bytes, bytes, bytes]), signal)
      }
      return 4 * packets.length
    })
    for (const socket of sockets) socket.destroy()
    return sent
  },
}

/** Topic aliases of long topics, and 1000 messages in one write that have nothing but them. */
export const floodOfTopicAliases: Scenario = {
  name: 'flood-of-topic-aliases',
  run: async (target, signal) => {
    const socket = await openMqtt(target, signal, { version: 5 })
    const topic = (alias: number): string => `aliases/${alias}/${'a'.repeat(900)}`
    const set = Array.from({ length: 32 }, (_, n) => publishPacket(topic(n), '', { properties: { topicAlias: n + 1 } }))
    const used = Array.from({ length: 1000 }, (_, n) =>
      publishPacket('', 'x', { properties: { topicAlias: 1 + (n % 32) } }),
    )
    const burst = Buffer.concat([...set, ...used])
    const sent = await repeat(signal, 50, async () => {
      await send(socket, burst, signal)
      return set.length + used.length
    })
    socket.destroy()
    return sent
  },
}

/** Groups of shared subscriptions that come and go, with messages for them. */
export const churnOfSharedGroups: Scenario = {
  name: 'churn-of-shared-groups',
  run: async (target, signal) => {
    const socket = await openMqtt(target, signal, { version: 5 })
    let round = 0
    const sent = await repeat(signal, 20, async () => {
      const filters = Array.from({ length: 500 }, (_, n) => `$share/group-${round++ % 900}-${n % 2}/shared/x`)
      await send(socket, Buffer.concat([subscribePacket(1, filters), publishPacket('shared/x', 'x')]), signal)
      return filters.length
    })
    socket.destroy()
    return sent
  },
}
