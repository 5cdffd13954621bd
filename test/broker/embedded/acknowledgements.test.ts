import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { IPublishPacket } from 'mqtt-packet'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { GatewayError } from '../../../src/base/errors.js'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { connect, type Session } from './mqtt-session.js'
import { connectRaw, type RawSession } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })

describe.each(['none', 'on disk'])('acknowledgements of a client with a session (data: %s)', kind => {
  let directory: string
  let broker: EmbeddedBroker
  let publisher: Session
  let session: RawSession

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    broker = await createEmbedded({ ...limits, data: kind === 'none' ? 'none' : directory }, log)
    publisher = await connect(broker)
    ;({ session } = await connectRaw(broker, { clientId: 'subscriber', clean: false }))
  })
  afterEach(async () => {
    await publisher.end()
    session.stream.destroy()
    await broker.close()
    await rm(directory, { recursive: true })
  })

  const nextPublish = async (): Promise<IPublishPacket & { messageId: number }> => {
    const packet = await session.next()
    if (packet?.cmd !== 'publish' || packet.messageId === undefined) throw new Error('no message came')
    return { ...packet, messageId: packet.messageId }
  }
  const comeBack = async (): Promise<void> => {
    session.stream.destroy()
    ;({ session } = await connectRaw(broker, { clientId: 'subscriber', clean: false }))
  }
  /** The reason why the broker ends the connection after what is to come. */
  const brokerEndOf = async (): Promise<string | undefined> => {
    const packet = await session.next()
    if (packet) throw new Error(`${packet.cmd} came instead of the end`)
    const { closeReason } = session.stream as typeof session.stream & { closeReason?: GatewayError }
    return closeReason?.reason
  }

  it.each([
    [1, 'pubrec'],
    [1, 'pubcomp'],
    [2, 'puback'],
    [2, 'pubcomp'],
  ] as const)(
    'that are of another QoS or too early end the connection, and the message comes again: QoS %i, %s',
    async (qos, cmd) => {
      await session.subscribe(['t'], qos)
      await publisher.publish('t', 'x', { qos })
      const { messageId } = await nextPublish()
      session.send({ cmd, messageId })
      expect(await brokerEndOf()).toBe('malformed-packet')
      await comeBack()
      expect(await nextPublish()).toMatchObject({ messageId, dup: true, qos })
    },
  )

  it('continue over the next connection where they were', async () => {
    await session.subscribe(['t'], 2)
    await publisher.publish('t', 'x', { qos: 2 })
    const { messageId } = await nextPublish()
    session.send({ cmd: 'pubrec', messageId })
    expect(await session.next()).toMatchObject({ cmd: 'pubrel', messageId })
    await comeBack()
    expect(await session.next()).toMatchObject({ cmd: 'pubrel', messageId })
    session.send({ cmd: 'pubcomp', messageId }).send({ cmd: 'pingreq' })
    expect(await session.next()).toMatchObject({ cmd: 'pingresp' })
    await comeBack()
    session.send({ cmd: 'pingreq' })
    expect(await session.next()).toMatchObject({ cmd: 'pingresp' })
  })

  it('are those of the QoS with which a message comes, and came first, not of that with which it was published or is subscribed now', async () => {
    await session.subscribe(['t'], 1)
    await publisher.publish('t', 'x', { qos: 2 })
    const first = await nextPublish()
    session.send({ cmd: 'puback', messageId: first.messageId })
    await session.subscribe(['t'], 2)
    await publisher.publish('t', 'x', { qos: 2 })
    const second = await nextPublish()
    await session.subscribe(['t'], 1)
    await comeBack()
    const third = await nextPublish()
    expect([first.qos, second.qos, third.qos]).toEqual([1, 2, 2])
    const { messageId } = third
    session.send({ cmd: 'pubrec', messageId })
    expect(await session.next()).toMatchObject({ cmd: 'pubrel', messageId })
    session.send({ cmd: 'pubcomp', messageId }).send({ cmd: 'pingreq' })
    expect(await session.next()).toMatchObject({ cmd: 'pingresp' })
  })

  it('of a retained message are taken', async () => {
    await publisher.publish('r', 'x', { qos: 2, retain: true })
    await session.subscribe(['r'], 2)
    const { messageId } = await nextPublish()
    session.send({ cmd: 'pubrec', messageId })
    expect(await session.next()).toMatchObject({ cmd: 'pubrel', messageId })
    session.send({ cmd: 'pubcomp', messageId }).send({ cmd: 'pingreq' })
    expect(await session.next()).toMatchObject({ cmd: 'pingresp' })
  })
})
