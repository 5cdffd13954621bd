import { once } from 'node:events'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createWebSocketStream, WebSocket } from 'ws'
import { startTestGateway, type TestGateway } from '../../helpers/gateway.js'
import { bytesOf, type Course, corpus, neighbours, type PacketCase } from './mosquitto-packets.js'

const cases = Object.entries(corpus).flatMap(([group, all]) =>
  all.map(each => ({ ...each, name: `${group}: ${each.name}` })),
)

/** One connection, whose bytes are read in portions of a known length. */
class Connection {
  readonly #stream: Duplex
  #bytes = Buffer.alloc(0)
  #isOver = false
  #onChange = (): void => {}

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('error', () => {})
    stream.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk])
      this.#onChange()
    })
    for (const event of ['end', 'close'] as const)
      stream.once(event, () => {
        this.#isOver = true
        this.#onChange()
      })
  }

  send(packet: Buffer): void {
    this.#stream.write(packet)
  }

  /** The next bytes as hex: `length` of them, or those before the end of the connection. */
  async receive(length: number): Promise<string> {
    while (!this.#isOver && this.#bytes.length < length) {
      await new Promise<void>(resolve => {
        this.#onChange = resolve
      })
    }
    const received = this.#bytes.subarray(0, length)
    this.#bytes = this.#bytes.subarray(length)
    return received.toString('hex')
  }

  /** Sends one packet; returns as many bytes of what comes back as `answer` has. */
  async exchange(packet: Buffer, answer: string): Promise<string> {
    this.send(packet)
    return this.receive(bytesOf(answer).length)
  }

  close(): void {
    this.#stream.destroy()
  }
}

/** The CONNECT of mosquitto's test runner: a clean session, and the name of the case as client id. */
function connectPacket(clientId: string, level: 3 | 4): Buffer {
  const id = Buffer.from(clientId)
  const protocol = level === 3 ? "s6 'MQIsdp' 03" : "s4 'MQTT' 04"
  const fields = Buffer.concat([bytesOf(`${protocol} 02 k60 s${id.length}`), id])
  return Buffer.concat([bytesOf(`10 r${fields.length}`), fields])
}

describe.each(['TCP', 'WebSocket'])('mosquitto’s packet corpus over %s', transport => {
  let gateway: TestGateway
  beforeAll(async () => {
    gateway = await startTestGateway({
      limits: { upgradesPerSecond: 'off' },
      // As mosquitto does, it keeps the sessions of clients without a name.
      embedded: { maxAnonymousSessions: 100 },
    })
  })
  afterAll(() => gateway.close())

  const open = async (): Promise<Connection> => {
    if (transport === 'TCP') {
      const socket = connect(gateway.mqttPort, '127.0.0.1')
      await once(socket, 'connect')
      return new Connection(socket)
    }
    const socket = new WebSocket(`${gateway.urls.http.replace('http', 'ws')}/mqtt`, 'mqtt')
    await once(socket, 'open')
    return new Connection(createWebSocketStream(socket))
  }

  /** A client of its own publishes `message` to `p`, and leaves. */
  const publish = async (qos: string): Promise<void> => {
    const helper = await open()
    await helper.exchange(connectPacket('helper', 4), '20 r2 0000')
    const [packet, answer] = qos === '1' ? ['32', '40 r2 m1'] : ['34', '50 r2 m1']
    await helper.exchange(bytesOf(`${packet} r12 s1 'p' m1 'message'`), answer)
    if (qos === '2') await helper.exchange(bytesOf('62 r2 m1'), '70 r2 m1')
    helper.close()
  }

  /** Plays a case as mosquitto's test runner does; `ends` is what came instead of the end or the answer to a PINGREQ, where that is wrong. */
  const play = async ({ name, level }: PacketCase, { exchange, ends }: Course) => {
    const connection = await open()
    if (level) await connection.exchange(connectPacket(name, level), '20 r2 0000')
    const answers: string[] = []
    for (const [sent, answer] of exchange) {
      const [, qos] = /^publish (\d)$/.exec(sent) ?? []
      if (qos === undefined) answers.push(await connection.exchange(bytesOf(sent), answer))
      else {
        await publish(qos)
        answers.push(await connection.receive(bytesOf(answer).length))
      }
    }
    const last = ends ? await connection.receive(1) : await connection.exchange(bytesOf('C0 r0'), 'D0 r0')
    connection.close()
    return { answers, last }
  }

  const expected = ({ exchange, ends }: Course) => ({
    answers: exchange.map(([, answer]) => bytesOf(answer).toString('hex')),
    last: ends ? '' : 'd000',
  })

  it.each([...cases, ...neighbours])('$name', async each => {
    const course = each.differs ?? each
    expect(await play(each, course)).toEqual(expected(course))
  })
})

it('the packet corpus of mosquitto is whole, and nearly all of it is answered as mosquitto does', () => {
  expect(cases).toHaveLength(295)
  expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length)
  expect(cases.flatMap(({ name, differs }) => (differs ? [name] : []))).toEqual([
    'CONNECT of MQTT 3.1: level 2 [MQTT-3.1.2-2]',
    'CONNECT of MQTT 3.1: level 6 [MQTT-3.1.2-2]',
    'CONNECT: level 2 [MQTT-3.1.2-2]',
    'CONNECT: level 6 [MQTT-3.1.2-2]',
    'PUBLISH: QoS 2 three times',
  ])
})
