import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import type { Message } from '../../../src/mqtt/message.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { eventually } from '../../helpers/wait.js'
import { bounds, Cleanup, log, SlowJournal, sessionOn, Watched } from '../rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

const message = (topic: string): Message => ({ topic, payload: Buffer.from(topic), qos: 1, retain: false })

/** A mosquitto, and what it says, which a test can hold back. */
async function heldBroker() {
  const mosquitto = await startMosquitto()
  cleanup.add(() => mosquitto.stop())
  const open: Socket[] = []
  const proxy = createServer(socket => {
    const upstream = connect(mosquitto.port, '127.0.0.1')
    socket.pipe(upstream).pipe(socket)
    open.push(socket, upstream)
    for (const each of [socket, upstream]) each.on('error', () => {})
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  cleanup.add(() => {
    for (const socket of open) socket.destroy()
    proxy.close()
  })
  const { port } = proxy.address() as AddressInfo
  return {
    broker: createUpstream(upstreamAt(`mqtt://127.0.0.1:${port}`), log),
    hold: () => {
      for (let index = 1; index < open.length; index += 2) open[index]?.unpipe().pause()
    },
    letGo: () => {
      for (let index = 1; index < open.length; index += 2) open[index]?.pipe(open[index - 1] as Socket)
    },
  }
}

const tooLate = { reason: 'publish-timeout' }

describe('a publication that somebody goes on waiting for', () => {
  it('is the event that it becomes when the broker passes it on at last, once', async () => {
    const held = await heldBroker()
    const journal = new MemoryJournal({ bounds, log })
    const watched = new Watched(journal)
    const session = await sessionOn(held.broker, journal, { publishTimeout: 50 })
    cleanup.add(() => session.close())
    await eventually(() => session.connected)
    held.hold()
    const patient = session.publish(message('patient'), { extraTimeout: 60_000 })
    await expect(session.publish(message('hasty'))).rejects.toMatchObject(tooLate)
    held.letGo()
    const event = await patient
    await watched.count(2)
    expect(watched.payloads()).toEqual(['patient', 'hasty'])
    expect(event?.id).toBe(watched.events[0]?.id)
  })

  it('is not given up where it is the disk that it waits for, however little patience there is', async () => {
    const held = await heldBroker()
    const journal = new SlowJournal({ bounds, log })
    const session = await sessionOn(held.broker, journal, { publishTimeout: 1000 })
    cleanup.add(() => session.close())
    await eventually(() => session.connected)
    journal.hold()
    const patient = session.publish(message('patient'), { extraTimeout: 1 })
    await eventually(() => journal.asked === 1)
    // Its time ends later than that of the first.
    await expect(session.publish(message('hasty'))).rejects.toMatchObject(tooLate)
    journal.letGo()
    expect(await patient).toMatchObject({ topic: 'patient' })
  })
})
