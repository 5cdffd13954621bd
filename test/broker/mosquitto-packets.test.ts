import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createEmbedded, type EmbeddedBroker } from '../../src/broker/embedded.js'
import { createLog } from '../../src/log.js'
import { limits } from './limits.js'
import { bytesOf, type PacketCase, packetCases } from './mosquitto-packets.js'
import { somePeer } from './mqtt-session.js'

const connect = "10 r13 s4 'MQTT' 04 02 k10 s1 'c'"
const [ping, pong] = ['C0 r0', 'D0 r0']

describe('the packets of mosquitto’s tests', () => {
  let broker: EmbeddedBroker
  beforeAll(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, createLog({ level: 'silent', format: 'json' }))
  })
  afterAll(() => broker.close())

  /** One connection, on which a PINGREQ follows what is sent, so that it is known when all answers have come. */
  class Connection {
    readonly #stream: Duplex
    #got = ''
    #onChange = (): void => {}
    ended = false

    constructor(stream: Duplex) {
      this.#stream = stream
      stream.on('error', () => {})
      stream.on('data', chunk => {
        this.#got += chunk.toString('hex')
        this.#onChange()
      })
      stream.once('end', () => stream.end())
      stream.once('close', () => {
        this.ended = true
        this.#onChange()
      })
    }

    /** Sends one packet, and returns the answer as hex, when so much has come or the connection is over. */
    async send(packet: string, expected: string): Promise<string> {
      this.#got = ''
      const length = bytesOf(expected).length * 2
      this.#stream.write(bytesOf(packet))
      while (!this.ended && (length === 0 || this.#got.length < length)) {
        if (length === 0) break
        await new Promise<void>(resolve => {
          this.#onChange = resolve
        })
      }
      return this.#got
    }

    /** Whether the broker has ended the connection; waits for the answer to a PINGREQ. */
    async isOver(): Promise<boolean> {
      const answer = await this.send(ping, pong)
      this.#stream.destroy()
      return !answer.endsWith(bytesOf(pong).toString('hex'))
    }
  }

  const play = async ({ exchange, connects }: PacketCase) => {
    const connection = new Connection(await broker.open(somePeer))
    if (!connects) await connection.send(connect, '20 r2 0000')
    const answers: string[] = []
    for (const [sent, expected] of exchange) answers.push(await connection.send(sent, expected))
    return { answers, ends: await connection.isOver() }
  }

  it.each(Object.entries(packetCases))('are answered as MQTT says: %s', async (_kind, cases) => {
    for (const each of cases) {
      const answers = each.exchange.map(([, answer]) => bytesOf(answer).toString('hex'))
      expect({ name: each.name, ...(await play(each)) }).toEqual({ name: each.name, answers, ends: each.ends })
    }
  })
})
