import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createEmbedded } from '../../src/broker/embedded.js'
import { identify, maxPacketId, PacketIds } from '../../src/broker/packet-ids.js'
import { createLog } from '../../src/log.js'
import { limits } from './limits.js'
import { connect } from './mqtt-session.js'
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
          const id = ids.next
          expect(used.has(id)).toBe(false)
          expect(id >= 1 && id <= maxPacketId).toBe(true)
          ids.take(id)
          used.add(id)
        }
        expect(ids.used).toBe(used.size)
      }),
    )
  })

  it('are all that there are', () => {
    const client = { _nextId: 1 }
    const ids = new PacketIds()
    identify(client, ids)
    const given = new Set<number>()
    for (let count = 0; count < maxPacketId; count++) {
      given.add(client._nextId)
      client._nextId++
    }
    expect([given.size, ids.used]).toEqual([maxPacketId, maxPacketId])
    ids.release(4096)
    expect(client._nextId).toBe(4096)
  })

  it('are not given to another message while the client has not acknowledged the first [MQTT-2.3.1-4]', async () => {
    const broker = await createEmbedded({ data: 'none', ...limits }, createLog({ level: 'silent', format: 'json' }))
    const publisher = await connect(broker)
    const { session } = await connectRaw(broker, { clientId: 'slow', clean: true })
    await session.subscribe(['t'], 1)
    const count = maxPacketId + 100
    let first: number | undefined
    const ids: number[] = []
    const flood = (async () => {
      for (let index = 0; index < count; index += 100)
        await Promise.all(Array.from({ length: 100 }, () => publisher.publish('t', '', { qos: 1 })))
    })()
    while (ids.length < count) {
      const packet = await session.next()
      if (packet?.cmd !== 'publish' || packet.messageId === undefined) throw new Error('no message came')
      first ??= packet.messageId
      ids.push(packet.messageId)
      if (packet.messageId !== first) session.send({ cmd: 'puback', messageId: packet.messageId })
    }
    await flood
    expect(ids.filter(id => id === first)).toHaveLength(1)
    session.stream.destroy()
    await publisher.end()
    await broker.close()
  })
})
