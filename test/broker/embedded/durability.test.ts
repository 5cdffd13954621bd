import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect as connectSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { IClientOptions } from 'mqtt'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { type RunningProgram, run } from '../../helpers/processes.js'
import { limits } from './limits.js'
import { connect, Session } from './mqtt-session.js'
import { connectRaw, type RawSession } from './raw-session.js'

const log = createLog({ level: 'silent', format: 'json' })
const program = fileURLToPath(new URL('fixtures/broker-program.js', import.meta.url))
const built = fileURLToPath(new URL('../../../dist/broker/embedded/embedded.js', import.meta.url))
const keeper = { clientId: 'keeper', clean: false }

/** By packet identifier: how far a message of QoS 2 has come. */
type Handshakes = Map<number, 'pubrec' | 'pubcomp'>

describe('the embedded broker, killed in the middle of traffic', () => {
  let data: string
  let running: RunningProgram
  let port: number
  /** What the broker acknowledged, in the order in which it was published. */
  let acknowledged: number[]
  let published: number

  const start = async (): Promise<void> => {
    running = run(process.execPath, [program, data])
    port = Number(await running.line())
  }
  const openSocket = async (): Promise<Duplex> => {
    const socket = connectSocket(port, '127.0.0.1')
    await once(socket, 'connect')
    return socket
  }
  const client = async (options: IClientOptions): Promise<Session> => {
    const session = new Session(await openSocket(), options)
    await session.connected()
    return session
  }
  const topicOf = (sequence: number): string => (sequence % 10 === 0 ? `log/state/${sequence % 70}` : 'log/line')

  /** Publishes without waiting, and kills the broker at the moment at which it has acknowledged `count` of it. */
  const publishAndKill = async (count: number): Promise<void> => {
    const publisher = await client({ clientId: 'publisher' })
    const closed = publisher.closed()
    let acknowledgedNow = 0
    for (let index = 0; index < count * 2; index++) {
      const sequence = published++
      publisher.client.publish(topicOf(sequence), String(sequence), { qos: 1, retain: sequence % 10 === 0 }, error => {
        if (error) return
        acknowledged.push(sequence)
        acknowledgedNow++
        if (acknowledgedNow === count) running.child.kill('SIGKILL')
      })
    }
    await closed
    await running.exited()
    publisher.client.end(true)
  }

  const publisherOf2 = async (): Promise<RawSession> =>
    (await connectRaw({ open: openSocket }, { clientId: 'exactly-once', clean: false })).session
  /** Goes on with each message where its handshake is, until `enough`, or until the connection ends. */
  const shakeHands = async (session: RawSession, handshakes: Handshakes, enough: () => boolean): Promise<void> => {
    while (!enough()) {
      const packet = await session.next()
      if (packet?.cmd !== 'pubrec' && packet?.cmd !== 'pubcomp') return
      const { cmd, messageId = 0 } = packet
      handshakes.set(messageId, cmd)
      if (cmd === 'pubrec') session.send({ cmd: 'pubrel', messageId })
    }
  }

  beforeEach(async () => {
    if (!existsSync(built)) throw new Error('dist/broker/embedded/embedded.js is missing: npm run build')
    data = await mkdtemp(join(tmpdir(), 'mqway-'))
    acknowledged = []
    published = 0
    await start()
    const session = await client(keeper)
    await session.subscribe('log/#', 1)
    await session.end()
  })
  afterEach(async () => {
    await running.stop('SIGKILL')
    await rm(data, { recursive: true })
  })

  it.each([1, 40, 200])(
    'has every message of QoS 2 whose handshake was completed, once, killed at PUBREC %i',
    async count => {
      const ids = Array.from({ length: 400 }, (_, index) => index + 1)
      const handshakes: Handshakes = new Map()
      const send = (session: RawSession, messageId: number, dup: boolean) =>
        session.send({
          cmd: 'publish',
          topic: 'log/line',
          payload: String(messageId),
          qos: 2,
          messageId,
          dup,
          retain: false,
        })
      const first = await publisherOf2()
      for (const id of ids) send(first, id, false)
      await shakeHands(first, handshakes, () => handshakes.size === count)
      running.child.kill('SIGKILL')
      await running.exited()
      await shakeHands(first, handshakes, () => false)
      await start()

      const second = await publisherOf2()
      for (const id of ids) {
        const state = handshakes.get(id)
        if (state === undefined) send(second, id, true)
        if (state === 'pubrec') second.send({ cmd: 'pubrel', messageId: id })
      }
      const completed = () => [...handshakes.values()].filter(state => state === 'pubcomp').length
      await shakeHands(second, handshakes, () => completed() === ids.length)
      await second.end()
      const last = await client({ clientId: 'publisher' })
      await last.publish('log/line', 'end', { qos: 1 })

      const session = await client(keeper)
      const got: number[] = []
      for (let text = await session.text(); text !== 'end'; text = await session.text()) got.push(Number(text))
      expect(got.toSorted((a, b) => a - b)).toEqual(ids)
      await Promise.all([session.end(), last.end()])
    },
  )

  it('has every acknowledged message for a session, in order, and every retained one, over several runs', async () => {
    for (const count of [1, 300, 1000]) {
      await publishAndKill(count)
      await start()
    }
    const last = await client({ clientId: 'publisher' })
    await last.publish('log/line', 'end', { qos: 1 })

    const session = await client(keeper)
    const received: number[] = []
    for (let text = await session.text(); text !== 'end'; text = await session.text()) received.push(Number(text))
    const unique = [...new Set(received)]
    expect(unique).toEqual([...unique].sort((a, b) => a - b))
    const got = new Set(received)
    expect(acknowledged.filter(sequence => !got.has(sequence))).toEqual([])
    expect(acknowledged.length).toBeGreaterThanOrEqual(1301)

    const states = new Map<string, number>()
    for (const sequence of acknowledged) if (sequence % 10 === 0) states.set(topicOf(sequence), sequence)
    const reader = await client({ clientId: 'reader' })
    await reader.subscribe('log/state/+', 1)
    for (let left = states.size; left > 0; left--) {
      const { topic, payload } = await reader.next()
      // A later one, of which the acknowledgement was lost with the broker, is as good.
      expect(Number(payload)).toBeGreaterThanOrEqual(states.get(topic) ?? Number.POSITIVE_INFINITY)
    }
    await Promise.all([session.end(), reader.end(), last.end()])
  })
})

describe('the embedded broker on disk', () => {
  let data: string
  let broker: EmbeddedBroker
  beforeEach(async () => {
    data = await mkdtemp(join(tmpdir(), 'mqway-'))
    broker = await createEmbedded({ data, ...limits }, log)
  })
  afterEach(async () => {
    await broker.close()
    await rm(data, { recursive: true })
  })

  it('says in one line that another process uses its directory, and what to do', async () => {
    await expect(createEmbedded({ data, ...limits }, log)).rejects.toMatchObject({
      name: 'StartError',
      message: expect.stringMatching(/^Another mqway uses .*--data DIR/),
    })
  })

  it('says in one line that its directory cannot be made', async () => {
    await expect(createEmbedded({ data: '/dev/null/x', ...limits }, log)).rejects.toThrow(/^Cannot keep .*--data DIR/)
  })

  it('gives a session that comes back its queue to the end, and then what is published meanwhile, each once and in order', async () => {
    const first = await connect(broker, keeper)
    await first.subscribe('line', 1)
    await first.end()
    const publisher = await connect(broker)
    const count = 3000
    for (let index = 0; index < 1000; index++) await publisher.publish('line', String(index), { qos: 1 })
    const more = (async () => {
      for (let index = 1000; index < count; index++) await publisher.publish('line', String(index), { qos: 1 })
    })()
    const second = await connect(broker, keeper)
    const received: string[] = []
    while (received.length < count) received.push(await second.text())
    await more
    expect(received).toEqual(Array.from({ length: count }, (_, index) => String(index)))
    await Promise.all([second.end(), publisher.end()])
  })

  it('keeps $SYS out of its files, and brings retained messages and sessions back', async () => {
    const session = await connect(broker, keeper)
    await session.subscribe('a/#', 1)
    await session.end()
    const publisher = await connect(broker)
    await publisher.publish('a/b', 'kept', { qos: 1, retain: true })
    await publisher.end()
    await broker.close()
    broker = await createEmbedded({ data, ...limits }, log)
    const again = await connect(broker, keeper)
    expect(await again.next()).toMatchObject({ topic: 'a/b', retain: false })
    await again.end()
  })
})
