import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { generate } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connect, type Session, somePeer } from './mqtt-session.js'

const maxQueuedBytes = 256 * 1024
const payload = Buffer.alloc(1000, 'x')

describe('a subscriber that does not read', () => {
  let broker: EmbeddedBroker
  const warnings: string[] = []
  let publisher: Session
  let healthy: Session
  let stalled: Duplex

  /** Subscribes, and from then on reads nothing. */
  const stall = async (clientId: string, qos: 0 | 1, clean = true): Promise<Duplex> => {
    const stream = await broker.open(somePeer)
    stream.on('error', () => {})
    stream.write(generate({ cmd: 'connect', clientId, clean, keepalive: 0 }))
    stream.write(generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'flood/#', qos }] }))
    const bytes = 4 + 5
    let got = Buffer.alloc(0)
    await new Promise<void>(resolve => {
      const take = (chunk: Buffer): void => {
        got = Buffer.concat([got, chunk])
        if (got.length < bytes) return
        stream.off('data', take).pause()
        if (got.length > bytes) stream.unshift(got.subarray(bytes))
        resolve()
      }
      stream.on('data', take)
    })
    return stream
  }
  /** So many fit into what may wait: the healthy subscriber is in this process, and reads when the flood lets it. */
  const batchSize = 100
  /** Publishes `count` messages, and waits until the healthy subscriber has all of them. */
  const flood = async (count: number, qos: 0 | 1): Promise<void> => {
    for (let left = count; left > 0; left -= batchSize) {
      const now = Math.min(left, batchSize)
      for (let index = 0; index < now; index++) publisher.client.publish('flood/x', payload, { qos })
      for (let index = 0; index < now; index++) await healthy.next()
    }
  }

  beforeEach(async () => {
    warnings.length = 0
    const log = createLog({ level: 'silent', format: 'json' })
    log.warn = (_: unknown, message?: string) => warnings.push(String(message))
    broker = await createEmbedded({ data: 'none', ...limits, maxQueuedBytes }, log)
    publisher = await connect(broker)
    healthy = await connect(broker)
    await healthy.subscribe('flood/#', 1)
  })
  afterEach(async () => {
    stalled.destroy()
    await Promise.all([publisher.end(), healthy.end()])
    await broker.close()
  })

  it('stalls nobody else, and loses QoS 0 beyond its limit, which is counted, and logged once', async () => {
    stalled = await stall('stalled', 0)
    await flood(20_000, 0)
    await flood(1000, 1)
    const { publishesDropped, publishesSent } = broker.figures()
    expect(publishesDropped).toBeGreaterThan(3000)
    expect(publishesSent + publishesDropped).toBe(2 * 21_000)
    expect(warnings).toHaveLength(1)
    expect(stalled.closed).toBe(false)
  })

  it('gets what comes after it has read everything', async () => {
    stalled = await stall('stalled', 0)
    await flood(5000, 0)
    const dropped = broker.figures().publishesDropped
    stalled.resume()
    let bytes = 0
    stalled.on('data', chunk => {
      bytes += chunk.length
    })
    await publisher.publish('flood/x', Buffer.alloc(50_000), { qos: 1 })
    while (bytes < 50_000) await once(stalled, 'data')
    await flood(10, 0)
    expect(broker.figures().publishesDropped).toBe(dropped)
  })

  it('is ended at QoS 1, and finds all of it in its session', async () => {
    stalled = await stall('stalled', 1, false)
    const ended = new Promise(resolve => stalled.once('close', resolve))
    let [count, isEnded] = [2000, false]
    void ended.then(() => {
      isEnded = true
    })
    await flood(count, 1)
    // It is ended when it has read nothing for five seconds, and there is more for it.
    for (; !isEnded; count++) {
      await flood(1, 1)
      await Promise.race([ended, new Promise(resolve => setTimeout(resolve, 100))])
    }
    expect(stalled.errored).toMatchObject({ name: 'GatewayError' })
    const back = await connect(broker, { clientId: 'stalled', clean: false })
    for (; count > 0; count--) await back.next()
    await back.end()
  })

  it('gets a retained message of 10 MB, however slowly it reads, while others are served', async () => {
    const large = Buffer.alloc(10_000_000, 'large')
    await publisher.publish('flood/large', large, { qos: 1, retain: true })
    await healthy.next()
    stalled = await stall('slow', 1)
    await flood(50, 1)
    const chunks: Buffer[] = []
    let length = 0
    while (length < large.length) {
      const chunk: Buffer | null = stalled.read()
      if (chunk) {
        chunks.push(chunk)
        length += chunk.length
        // Others have as much as one turn of the event loop brings, before it takes the next.
        await new Promise(setImmediate)
      } else await once(stalled, 'readable')
    }
    expect(Buffer.concat(chunks).includes(large)).toBe(true)
    expect(stalled.closed).toBe(false)
  })
})

it('a subscriber that reads nothing, and is the only one, holds its publisher up for a while and not for good', async () => {
  const log = createLog({ level: 'silent', format: 'json' })
  const broker = await createEmbedded({ data: 'none', ...limits, maxQueuedBytes: 64 * 1024 }, log)
  const subscriber = await connect(broker)
  await subscriber.subscribe('flood', 0)
  subscriber.stream.pause()
  const publisher = await connect(broker)
  for (let index = 0; index < 5000; index++) publisher.client.publish('flood', payload)
  await publisher.publish('flood', payload, { qos: 1 })
  subscriber.stream.destroy()
  await publisher.end()
  await broker.close()
})

it('what waits for a client that does not read still counts after the broker has ended its connection', async () => {
  const log = createLog({ level: 'silent', format: 'json' })
  // At least four of the largest packets, of which one address has half.
  const options = { ...limits, maxPacketSize: 64 * 1024, maxBufferedBytes: 1 }
  const broker = await createEmbedded({ data: 'none', ...options }, log)
  const publisher = await connect(broker)
  const subscriber = await connect(broker)
  await subscriber.subscribe('flood', 0)
  subscriber.stream.pause()
  const closed = expect(once(subscriber.stream, 'close')).rejects.toThrow('The client reads too slowly')
  for (let index = 0; index < 300; index++) await publisher.publish('flood', payload, { qos: 1 })
  const reserved = Buffer.from([0xf0, 0])
  subscriber.stream.write(reserved)
  await closed
  await publisher.end()
  await broker.close()
})
