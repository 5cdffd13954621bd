import type { Duplex } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { GatewayError } from '../../../src/base/errors.js'
import { createLog } from '../../../src/base/log.js'
import { createEmbedded, type EmbeddedBroker } from '../../../src/broker/embedded/embedded.js'
import { limits } from './limits.js'
import { somePeer } from './mqtt-session.js'

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex')
const connect = '10 0d 0004 4d515454 04 02 000a 0001 70'
const ping = 'c0 00'

describe('packets that MQTT forbids', () => {
  let broker: EmbeddedBroker
  beforeAll(async () => {
    broker = await createEmbedded({ data: 'none', ...limits }, createLog({ level: 'silent', format: 'json' }))
  })
  afterAll(() => broker.close())

  /** Sends the packets, those after the first one when that is answered; returns what came back, as hex, until the answer to a last PINGREQ or the end, and why it ended. */
  async function exchange(first: string, ...others: string[]): Promise<{ answer: string; reason: string | undefined }> {
    const stream: Duplex = await broker.open(somePeer)
    let answer = ''
    return new Promise(resolve => {
      stream.on('data', (chunk: Buffer) => {
        if (answer === '') stream.write(hex(others.join('')))
        answer += chunk.toString('hex')
        if (answer.endsWith('d000')) stream.end()
      })
      stream.on('error', () => {})
      stream.once('end', () => stream.end())
      stream.once('close', () => {
        const { closeReason } = stream as Duplex & { closeReason?: GatewayError }
        const error = stream.errored ?? closeReason
        resolve({ answer, reason: error instanceof GatewayError ? error.reason : undefined })
      })
      stream.write(hex(first))
    })
  }

  it.each([
    ['U+0000 in a topic', '30 0e 0005 746f700000 7061796c6f6164'],
    ['a surrogate in a topic', '30 0e 0005 746feda080 7061796c6f6164'],
    ['bytes that are no UTF-8 in a topic', '30 09 0005 746f70ff70 7078'],
    ['a control character in a topic', '30 0e 0005 746f701f70 7061796c6f6164'],
    ['U+FFFF in a topic', '30 09 0005 7474efbfbf 7078'],
    ['an empty topic', '30 04 0000 7078'],
    ['a wildcard in a topic', '30 05 0003 612f23'],
    ['DUP with QoS 0', '38 05 0001 61 7078'],
    ['QoS 1 and identifier 0', '32 07 0001 61 0000 7078'],
    ['QoS 2 and no identifier', '34 03 0001 61'],
    ['U+0000 in a filter', '82 08 0001 0003 610062 00'],
    ['what is no UTF-8 in a filter', '82 08 0001 0003 61ff62 00'],
    ['SUBSCRIBE without a filter', '82 02 0001'],
    ['SUBSCRIBE with identifier 0', '82 06 0000 0001 61 00'],
    ['UNSUBSCRIBE without a filter', 'a2 02 0001'],
    ['U+0000 in UNSUBSCRIBE', 'a2 07 0001 0003 610062'],
    ['PUBACK with identifier 0', '40 02 0000'],
    ['PUBACK of three bytes', '40 03 0001 00'],
    ['PINGREQ with a body', 'c0 01 00'],
    ['DISCONNECT with a body', 'e0 01 00'],
  ])('end the connection: %s', async (_name, bytes) => {
    expect(await exchange(connect, bytes, ping)).toEqual({ answer: '20020000', reason: 'malformed-packet' })
  })

  it.each([
    ['U+0000 in the client id', '10 0f 0004 4d515454 04 02 000a 0003 610062'],
    ['U+0000 in the user name', '10 12 0004 4d515454 04 82 000a 0001 70 0003 610062'],
    ['what is no UTF-8 in the user name', '10 12 0004 4d515454 04 82 000a 0001 70 0003 61ff62'],
    ['U+0000 in the topic of the will', '10 15 0004 4d515454 04 06 000a 0001 70 0003 610062 0001 78'],
    ['an empty topic of the will', '10 12 0004 4d515454 04 06 000a 0001 70 0000 0001 78'],
    ['a wildcard in the topic of the will', '10 13 0004 4d515454 04 06 000a 0001 70 0001 23 0001 78'],
    ['a will of QoS 3', '10 13 0004 4d515454 04 1e 000a 0001 70 0001 70 0001 78'],
    ['a password without a user name', '10 10 0004 4d515454 04 42 000a 0001 70 0001 70'],
    ['a reserved flag', '10 0d 0004 4d515454 04 03 000a 0001 70'],
    ['reserved flags in its first byte', '12 0d 0004 4d515454 04 02 000a 0001 70'],
    ['bytes behind its last field', '10 10 0004 4d515454 04 02 000a 0001 70 0001 70'],
    ['another protocol', '10 0d 0004 4d515455 04 02 000a 0001 70'],
  ])('are no CONNECT: %s', async (_name, bytes) => {
    expect(await exchange(bytes, ping)).toEqual({ answer: '', reason: 'malformed-packet' })
  })

  it.each([
    ['MQTT of level 2', '10 0d 0004 4d515454 02 02 000a 0001 70'],
    ['MQTT of level 6', '10 0d 0004 4d515454 06 02 000a 0001 70'],
    ['a bridge of MQTT 5', '10 0e 0004 4d515454 85 02 000a 00 0001 70'],
    ['MQIsdp of level 4', '10 0f 0006 4d5149736470 04 02 000a 0001 70'],
  ])('but an unknown level is answered with return code 1 [MQTT-3.1.2-2]: %s', async (_name, bytes) => {
    expect((await exchange(bytes)).answer).toBe('20020001')
  })

  it.each([
    ['MQTT 3.1 with its reserved flag set', '10 0f 0006 4d5149736470 03 01 000a 0001 70', '20020000d000'],
    ['MQTT 3.1 with flags in its first byte', '14 0f 0006 4d5149736470 03 03 000a 0001 70', '20020000d000'],
    ['a bridge', '10 0d 0004 4d515454 84 02 000a 0001 70', '20020000d000'],
    ['U+FFFD in the client id', '10 0f 0004 4d515454 04 02 000a 0003 efbfbd', '20020000d000'],
  ])('and this is taken: %s', async (_name, bytes, answer) => {
    expect((await exchange(bytes, ping)).answer).toBe(answer)
  })

  it('and MQTT 3.1 has no empty client id', async () => {
    expect((await exchange('10 0e 0006 4d5149736470 03 02 000a 0000')).answer).toBe('20020002')
  })
})
