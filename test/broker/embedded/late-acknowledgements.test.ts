import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import type { AcceptedMessage, MessageSink } from '../../../src/broker/embedded/message-sink.js'
import { BatchedLevel } from '../../../src/storage/batched-level.js'
import { eventually, settled } from '../../helpers/wait.js'
import { limits } from './limits.js'
import { connect } from './mqtt-session.js'
import { connectRaw } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })

const publication = (payload: string, messageId: number, dup = false) =>
  ({ cmd: 'publish', topic: 't', payload, qos: 2, retain: false, dup, messageId }) as const

/** A sink that appends when the test says so. */
class SlowSink implements MessageSink {
  readonly isFull = false
  readonly payloads: string[] = []
  readonly #release: (() => void)[] = []

  append({ topic, payload }: AcceptedMessage): Promise<void> | undefined {
    if (topic !== 't') return undefined
    this.payloads.push(String(payload))
    return new Promise(resolve => this.#release.push(resolve))
  }

  release(): void {
    for (const release of this.#release.splice(0)) release()
  }
}

describe.each(['none', 'disk'])('a message of QoS 2 whose acknowledgement waits (data: %s)', kind => {
  let directory: string
  let broker: EmbeddedBroker
  let sink: SlowSink
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    broker = await createEmbedded({ data: kind === 'none' ? 'none' : directory, ...limits }, log)
    sink = new SlowSink()
    broker.attach(sink)
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    await broker.close()
    await rm(directory, { recursive: true })
  })

  /** Publishes one, whose connection is lost before its acknowledgement. */
  async function publishAndLeave(clean: boolean): Promise<void> {
    const { session } = await connectRaw(broker, { clientId: 'sensor', clean })
    session.send(publication('first', 1))
    await eventually(() => sink.payloads.length === 1)
    session.stream.destroy()
  }

  it('is no repetition for the next connection of a client without a session', async () => {
    await publishAndLeave(true)
    const { session } = await connectRaw(broker, { clientId: 'sensor', clean: true })
    sink.release()
    await settled(() => sink.payloads.length)
    session.send(publication('second', 1))
    await eventually(() => sink.payloads.length === 2)
    sink.release()
    expect(await session.next()).toMatchObject({ cmd: 'pubrec', messageId: 1 })
    expect(sink.payloads).toEqual(['first', 'second'])
    await session.end()
  })

  it('is acknowledged over the next connection of its session when it is appended, and not before', async () => {
    await publishAndLeave(false)
    const { session } = await connectRaw(broker, { clientId: 'sensor', clean: false })
    let answers = 0
    const answer = session.send(publication('first', 1, true)).next()
    void answer.then(() => answers++)
    await settled(() => answers)
    expect(answers).toBe(0)
    sink.release()
    expect(await answer).toMatchObject({ cmd: 'pubrec', messageId: 1 })
    session.send({ cmd: 'pubrel', messageId: 1 })
    expect(await session.next()).toMatchObject({ cmd: 'pubcomp', messageId: 1 })
    session.send(publication('second', 1))
    await eventually(() => sink.payloads.length === 2)
    sink.release()
    expect(await session.next()).toMatchObject({ cmd: 'pubrec', messageId: 1 })
    expect(sink.payloads).toEqual(['first', 'second'])
    await session.end()
  })
})

describe('messages of QoS 2 on disk', () => {
  let directory: string
  let broker: EmbeddedBroker
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mqway-'))
    broker = await createEmbedded({ data: directory, ...limits }, log)
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    await broker.close()
    await rm(directory, { recursive: true })
  })

  it('are new when they come again after a write that failed', async () => {
    const sleeper = await connect(broker, { clientId: 'sleeper', clean: false })
    await sleeper.subscribe('t', 2)
    await sleeper.end()
    const write = vi.spyOn(BatchedLevel.prototype, 'write')
    write.mockImplementation(changes =>
      changes.some(({ key }) => key.startsWith('outgoing:'))
        ? Promise.reject(new Error('no space'))
        : Promise.resolve(),
    )
    const first = await connectRaw(broker, { clientId: 'p', clean: false })
    first.session.send(publication('x', 5))
    expect(await first.session.next()).toBeUndefined()
    write.mockRestore()
    const second = await connectRaw(broker, { clientId: 'p', clean: false })
    second.session.send(publication('x', 5, true))
    expect(await second.session.next()).toMatchObject({ cmd: 'pubrec', messageId: 5 })
    const back = await connect(broker, { clientId: 'sleeper', clean: false })
    expect(await back.text()).toBe('x')
    await Promise.all([second.session.end(), back.end()])
  })

  it('are known as repetitions after a restart, until their PUBREL', async () => {
    const first = await connectRaw(broker, { clientId: 'p', clean: false })
    first.session.send(publication('x', 4097))
    expect(await first.session.next()).toMatchObject({ cmd: 'pubrec' })
    await first.session.end()
    await broker.close()
    broker = await createEmbedded({ data: directory, ...limits }, log)
    const sink = new SlowSink()
    broker.attach(sink)
    const { session } = await connectRaw(broker, { clientId: 'p', clean: false })
    session.send(publication('x', 4097, true))
    expect(await session.next()).toMatchObject({ cmd: 'pubrec', messageId: 4097 })
    session.send({ cmd: 'pubrel', messageId: 4097 })
    expect(await session.next()).toMatchObject({ cmd: 'pubcomp' })
    session.send(publication('y', 4097))
    await eventually(() => sink.payloads.length === 1)
    sink.release()
    expect(await session.next()).toMatchObject({ cmd: 'pubrec' })
    expect(sink.payloads).toEqual(['y'])
    await session.end()
  })

  it('are no repetitions of those that a client without a session had sent before the last run was killed', async () => {
    await broker.close()
    const level = new Level(join(directory, 'broker'))
    await level.put('incoming:p:0000000000000007', 'x')
    await level.close()
    broker = await createEmbedded({ data: directory, ...limits }, log)
    const sink = new SlowSink()
    broker.attach(sink)
    const { session } = await connectRaw(broker, { clientId: 'p', clean: false })
    session.send(publication('new', 7))
    await eventually(() => sink.payloads.length === 1)
    sink.release()
    expect(await session.next()).toMatchObject({ cmd: 'pubrec', messageId: 7 })
    await session.end()
  })
})
