import fc from 'fast-check'
import { generate } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded } from '../../../src/broker/embedded/embedded.js'
import { maxPacketId, PacketIds } from '../../../src/broker/embedded/packet-ids.js'
import { limits } from './limits.js'
import { connectRaw } from './raw-session.js'

describe('packet identifiers of messages to a client', () => {
  it('are given once until they are released, whatever is taken and released in between', () => {
    const commands = fc.array(fc.oneof(fc.constant('next' as const), fc.integer({ min: 1, max: 40 })), {
      maxLength: 200,
    })
    fc.assert(
      fc.property(commands, all => {
        const ids = new PacketIds(maxPacketId - 10)
        const used = new Set<number>()
        for (const command of all) {
          if (command !== 'next') {
            ids.release(command)
            used.delete(command)
            continue
          }
          const id = ids.takeNext('puback')
          expect(used.has(id)).toBe(false)
          expect(id >= 1 && id <= maxPacketId).toBe(true)
          used.add(id)
        }
        expect(ids.used).toBe(used.size)
      }),
    )
  })

  it('are all that there are', () => {
    const ids = new PacketIds(1)
    const given = new Set<number>()
    for (let count = 0; count < maxPacketId; count++) given.add(ids.takeNext('puback'))
    expect([given.size, ids.used]).toEqual([maxPacketId, maxPacketId])
    ids.release(4096)
    expect(ids.takeNext('puback')).toBe(4096)
  })

  it('wait for one acknowledgement each, which may come twice', () => {
    const ids = new PacketIds(1)
    const [one, two] = [ids.takeNext('puback'), ids.takeNext('pubrec')]
    const taken = (id: number) => (['pubrec', 'pubcomp', 'puback'] as const).map(each => ids.acknowledge(id, each))
    expect(taken(one)).toEqual([false, false, true])
    expect([ids.acknowledge(two, 'puback'), ids.acknowledge(two, 'pubcomp')]).toEqual([false, false])
    expect([ids.acknowledge(two, 'pubrec'), ids.acknowledge(two, 'pubrec')]).toEqual([true, true])
    expect([ids.acknowledge(two, 'puback'), ids.acknowledge(two, 'pubcomp')]).toEqual([false, true])
    expect(ids.used).toBe(2)
    for (const id of [one, two]) ids.release(id)
    expect([taken(one), taken(two), ids.used]).toEqual([[true, true, true], [true, true, true], 0])
  })

  it('are not given to another message while the client has not acknowledged the first [MQTT-2.3.1-4]', {
    timeout: 60_000,
  }, async () => {
    const broker = await createEmbedded({ data: 'none', ...limits }, createLog({ level: 'silent', format: 'json' }))
    const { session: publisher } = await connectRaw(broker, { clientId: 'publisher', clean: true })
    const { session } = await connectRaw(broker, { clientId: 'slow', clean: true })
    await session.subscribe(['t'], 1)
    const count = maxPacketId + 100
    let first: number | undefined
    const ids: number[] = []
    const message = {
      cmd: 'publish',
      topic: 't',
      payload: '',
      qos: 1,
      dup: false,
      retain: false,
      messageId: 1,
    } as const
    const burst = Buffer.concat(Array.from({ length: 1000 }, () => generate(message)))
    let sent = 0
    while (ids.length < count) {
      for (; sent < count && sent - ids.length < 2000; sent += 1000) publisher.stream.write(burst)
      const packet = await session.next()
      if (packet?.cmd !== 'publish' || packet.messageId === undefined) throw new Error('no message came')
      first ??= packet.messageId
      ids.push(packet.messageId)
      if (packet.messageId !== first) session.send({ cmd: 'puback', messageId: packet.messageId })
    }
    expect(ids.filter(id => id === first)).toHaveLength(1)
    session.stream.destroy()
    publisher.stream.destroy()
    await broker.close()
  })
})
