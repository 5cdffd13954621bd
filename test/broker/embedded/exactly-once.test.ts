import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FairQuota } from '../../../src/base/fair-quota.js'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { UnreleasedIds } from '../../../src/broker/embedded/unreleased-ids.js'
import { limits } from './limits.js'
import { connect, type Session } from './mqtt-session.js'
import { connectRaw, type RawSession } from './raw-session.js'

const count = 1500

describe('1500 messages of QoS 2 before the first PUBREL', () => {
  let broker: EmbeddedBroker
  let subscriber: Session

  const send = (session: RawSession, dup: boolean): void => {
    for (let messageId = 1; messageId <= count; messageId++)
      session.send({ cmd: 'publish', topic: 't', payload: String(messageId), qos: 2, dup, retain: false, messageId })
  }
  const received = async (session: RawSession): Promise<number[]> => {
    const ids: number[] = []
    while (ids.length < count) {
      const packet = await session.next()
      if (packet?.cmd !== 'pubrec') break
      ids.push(packet.messageId ?? 0)
    }
    return ids
  }

  beforeEach(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, createLog({ level: 'silent', format: 'json' }))
    subscriber = await connect(broker)
    await subscriber.subscribe('t', 0)
  })
  afterEach(async () => {
    await subscriber.end()
    await broker.close()
  })

  it('are taken', async () => {
    const { session } = await connectRaw(broker, { clientId: 'p', clean: true })
    send(session, false)
    expect(await received(session)).toHaveLength(count)
    await session.end()
  })

  it('come once, when they are sent again over the session’s next connection', async () => {
    const first = await connectRaw(broker, { clientId: 'p', clean: false })
    send(first.session, false)
    // Some are stored, some are under way, some are not read yet.
    await first.session.next()
    first.session.stream.destroy()
    const second = await connectRaw(broker, { clientId: 'p', clean: false })
    send(second.session, true)
    expect(await received(second.session)).toHaveLength(count)
    await subscriber.publish('t', 'end')
    const payloads: string[] = []
    for (let text = await subscriber.text(); text !== 'end'; text = await subscriber.text()) payloads.push(text)
    expect(payloads).toHaveLength(count)
    expect(new Set(payloads).size).toBe(count)
    await second.session.end()
  })
})

describe('packet identifiers whose PUBREL has not come', () => {
  it('are shared by accounts, and given back when they are released or the connection is over', () => {
    const quota = new FairQuota(100)
    const [first, second] = [new UnreleasedIds(quota, 'a'), new UnreleasedIds(quota, 'a')]
    for (let id = 1; id <= 50; id++) (id % 2 === 0 ? first : second).add(id).add(id)
    expect([first.fits(51), first.fits(2), new UnreleasedIds(quota, 'b').fits(1)]).toEqual([false, true, true])
    first.delete(2)
    first.delete(2)
    expect(quota.total).toBe(49)
    second.clear()
    second.add(7)
    second.clear()
    first.clear()
    expect(quota.total).toBe(0)
  })
})
