import { ask, openMqtt, publishPacket, repeat, send, sleep } from './attacker.js'
import { scan, storeMany, subscribeOften } from './retained-subscribers.js'
import type { Scenario } from './scenario.js'

/** Point 3: SUBSCRIBEs of many filters against many retained messages. */
export const scansOfRetainedMessages: Scenario = {
  name: 'scans-of-retained-messages',
  run: async (target, signal) => {
    await storeMany(target, signal, 20_000)
    return scan(target, signal)
  },
}

/** Point 3: many small SUBSCRIBEs against many retained messages. */
export const subscribesOfRetainedMessages: Scenario = {
  name: 'subscribes-of-retained-messages',
  run: async (target, signal) => {
    await storeMany(target, signal, 20_000)
    return subscribeOften(target, signal)
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
    await storeMany(target, signal, 5000)
    return repeat(signal, 20, async () => {
      await ask(target, signal, 'GET', '/v1/poll?topic=%23&timeout=0')
      return 1
    })
  },
}
