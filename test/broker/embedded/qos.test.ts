import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connect, type Session } from './mqtt-session.js'

const log = createLog({ level: 'silent', format: 'json' })

describe.each([true, false])('the QoS of what a subscriber gets (clean session: %s)', clean => {
  const options = { clientId: 'subscriber', clean }
  let broker: EmbeddedBroker
  let publisher: Session
  let subscriber: Session

  beforeEach(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, log)
    publisher = await connect(broker)
    subscriber = await connect(broker, options)
  })
  afterEach(async () => {
    await Promise.all([publisher.end(), subscriber.end()])
    await broker.close()
  })

  /** What comes of one message on `topic` at QoS 2, up to a mark that follows. */
  const received = async (topic: string): Promise<number[]> => {
    await subscriber.subscribe('mark', 1)
    await publisher.publish(topic, '', { qos: 2 })
    await publisher.publish('mark', '', { qos: 1 })
    const found: number[] = []
    for (let next = await subscriber.next(); next.topic !== 'mark'; next = await subscriber.next()) found.push(next.qos)
    return found
  }

  it('is that of the filter that matches, not the highest of all [MQTT-3.8.4-6]', async () => {
    await subscriber.subscribe('k/a', 2)
    await subscriber.subscribe('k/+', 1)
    await subscriber.subscribe('l/+', 0)
    expect(await received('k/b')).toEqual([1])
    expect(await received('k/a')).toEqual([2])
    expect(await received('l/b')).toEqual([0])
  })

  it.each([
    ['o/+', 1, 'o/x', 0],
    ['o/x', 0, 'o/+', 1],
    ['o/x', 1, 'o/#', 0],
  ] as const)('is the highest of %s (%i) and %s (%i), once [MQTT-3.3.5-1]', async (a, qosA, b, qosB) => {
    await subscriber.subscribe(a, qosA)
    await subscriber.subscribe(b, qosB)
    expect(await received('o/x')).toEqual([1])
    await subscriber.end()
    subscriber = await connect(broker, options)
    // Nothing of it is left in the session.
    expect(await received('another')).toEqual([])
  })

  it('follows a filter that is subscribed to again, or no more', async () => {
    await subscriber.subscribe('a/#', 2)
    await subscriber.subscribe('a/b', 1)
    expect(await received('a/b')).toEqual([2])
    await subscriber.subscribe('a/#', 0)
    expect(await received('a/b')).toEqual([1])
    await subscriber.client.unsubscribeAsync('a/b')
    expect(await received('a/b')).toEqual([0])
  })
})
