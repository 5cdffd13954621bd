import { ask, openMqtt, publishPacket, repeat, send, sleep, subscribePacket } from './attacker.js'
import type { AttackTarget, Scenario } from './scenario.js'

/** Stores `count` retained messages on topics of the attacker, in writes of a few hundred. */
async function store(target: AttackTarget, signal: AbortSignal, count: number): Promise<void> {
  const publisher = await openMqtt(target, signal)
  for (let index = 0; index < count && !signal.aborted; index += 500) {
    const burst = Array.from({ length: 500 }, (_, one) =>
      publishPacket(`retained/${target.address}/${index + one}`, 'x', { retain: true }),
    )
    await send(publisher, Buffer.concat(burst), signal)
    await sleep(5, signal)
  }
  publisher.destroy()
}

/** Point 3: filters that match nothing and everything, against many retained messages; the client leaves at once. */
export const scansOfRetainedMessages: Scenario = {
  name: 'scans-of-retained-messages',
  run: async (target, signal) => {
    await store(target, signal, 20_000)
    return repeat(signal, 200, async () => {
      const socket = await openMqtt(target, signal)
      const filters = Array.from({ length: 25 }, (_, index) => [`+/+/${index}x`, `retained/+/+/${index}`, '#']).flat()
      await send(socket, subscribePacket(filters), signal)
      await sleep(20, signal)
      socket.destroy()
      return filters.length
    })
  },
}

/** Point 8: retained messages of 15 MiB. */
export const bigRetainedMessages: Scenario = {
  name: 'big-retained-messages',
  run: (target, signal) => {
    const payload = Buffer.alloc(15 * 2 ** 20)
    let topic = 0
    return repeat(signal, 200, async () => {
      const socket = await openMqtt(target, signal)
      await send(socket, publishPacket(`big/${topic++ % 40}`, payload, { retain: true }), signal)
      await sleep(50, signal)
      socket.destroy()
      return 1
    })
  },
}

/** Neighbour of point 3: the same filters over event streams, which ask the journal's retained messages. */
export const retainedForStreams: Scenario = {
  name: 'retained-for-streams',
  run: async (target, signal) => {
    await store(target, signal, 5000)
    return repeat(signal, 20, async () => {
      await ask(target, signal, 'GET', '/v1/poll?topic=%23&timeout=0')
      return 1
    })
  },
}
