import { randomInt } from 'node:crypto'
import net from 'node:net'
import { describe, expect, it } from 'vitest'
import { testedBroker } from '../conformance/broker.js'
import type { Client } from '../conformance/client.js'
import {
  acknowledgement,
  authPacket,
  connectPacket,
  decodePacket,
  disconnectPacket,
  encodeProperties,
  type Properties,
  packet,
  packetSize,
  pingreq,
  publishPacket,
  type Received,
  subscribePacket,
  text,
  unsubscribePacket,
  Violation,
} from '../conformance/packets.js'
import { makeRandom } from './random.js'

/** Mutated packets in one run; `npm run fuzz` makes them more. */
const attacks = Number(process.env['FUZZ_RUNS'] ?? 1_500)
/** The same seed makes the same packets. */
const seed = Number(process.env['FUZZ_SEED'] ?? randomInt(2 ** 31))
/** Connections at the same time. */
const atATime = 100

const { random, pick, bytes, mutate } = makeRandom(seed)

const topics = ['a', 'fuzz/x', '$SYS/y', '/', 'constructor', '__proto__', 'x'.repeat(200)]
const filters = ['#', '+/x', 'a/#/b', 'fuzz/+', '$share/g/fuzz/+', '$share/__proto__/#', '$SYS/#']

const values: Readonly<Required<{ [Name in keyof Properties]: () => NonNullable<Properties[Name]> }>> = {
  payloadFormatIndicator: () => random(2),
  messageExpiryInterval: () => random(5),
  contentType: () => pick(topics),
  responseTopic: () => pick(topics),
  correlationData: () => bytes(random(20)),
  subscriptionIdentifier: () => 1 + random(300),
  sessionExpiryInterval: () => random(3),
  assignedClientIdentifier: () => 'x',
  serverKeepAlive: () => random(100),
  authenticationMethod: () => 'PLAIN',
  authenticationData: () => bytes(random(10)),
  requestProblemInformation: () => random(2),
  willDelayInterval: () => random(2),
  requestResponseInformation: () => random(2),
  responseInformation: () => 'x',
  serverReference: () => 'x',
  reasonString: () => pick(topics),
  receiveMaximum: () => 1 + random(20),
  topicAliasMaximum: () => random(20),
  topicAlias: () => 1 + random(10),
  maximumQoS: () => random(2),
  retainAvailable: () => random(2),
  userProperties: () => Array.from({ length: 1 + random(3) }, () => [pick(topics), pick(topics)] as const),
  maximumPacketSize: () => 30 + random(500),
  wildcardSubscriptionAvailable: () => random(2),
  subscriptionIdentifierAvailable: () => random(2),
  sharedSubscriptionAvailable: () => random(2),
}
const allNames = Object.keys(values) as (keyof Properties)[]

/** Some of these properties; now and then any others, or mutated ones. */
function some(...names: (keyof Properties)[]): Buffer {
  const chosen = names.filter(() => random(3) === 0)
  if (random(10) === 0) chosen.push(pick(allNames))
  const encoded = encodeProperties(Object.fromEntries(chosen.map(name => [name, values[name]()])))
  return random(10) === 0 ? mutate(encoded) : encoded
}

const message = (): Buffer =>
  some(
    'payloadFormatIndicator',
    'messageExpiryInterval',
    'contentType',
    'responseTopic',
    'correlationData',
    'userProperties',
  )
const connect = (clientId: string): Buffer =>
  connectPacket({
    clientId,
    cleanStart: random(2) === 0,
    keepAlive: random(100),
    properties: encodeProperties({
      receiveMaximum: 1 + random(20),
      topicAliasMaximum: random(5),
      sessionExpiryInterval: random(2),
    }),
  })
const wildConnect = (): Buffer =>
  connectPacket({
    clientId: `fuzz-${random(20)}`,
    cleanStart: random(2) === 0,
    properties: some(
      'sessionExpiryInterval',
      'receiveMaximum',
      'maximumPacketSize',
      'topicAliasMaximum',
      'userProperties',
    ),
    will: {
      topic: pick(topics),
      payload: bytes(random(50)),
      qos: random(3),
      retain: random(2) === 0,
      properties: Buffer.concat([message(), some('willDelayInterval')]),
    },
    ...(random(4) === 0 ? { userName: pick(topics), password: 'x' } : {}),
  })
const packets: readonly (() => Buffer)[] = [
  () =>
    publishPacket(pick(topics), bytes(random(300)), {
      qos: random(3),
      id: 1 + random(9),
      retain: random(5) === 0,
      properties: random(3) === 0 ? some('topicAlias') : message(),
    }),
  () => publishPacket('', bytes(10), { properties: some('topicAlias') }),
  () => subscribePacket(1 + random(9), [[pick(filters), random(64)]], some('subscriptionIdentifier', 'userProperties')),
  () => unsubscribePacket(1 + random(9), [pick(filters)], some('userProperties')),
  () =>
    acknowledgement(
      pick(['puback', 'pubrec', 'pubrel', 'pubcomp']),
      1 + random(9),
      pick([0, 0, 0x10, 0x80, 0x92, 0x97]),
      some('reasonString', 'userProperties'),
    ),
  () => disconnectPacket(pick([0, 4, 0x80]), some('sessionExpiryInterval', 'reasonString', 'userProperties')),
  () => authPacket(pick([0, 0x18, 0x19]), some('authenticationMethod', 'authenticationData')),
  () => packet(random(256), text(pick(topics)), bytes(random(30))),
  () => pingreq,
]

/** Sends the bytes and the end; what came back until the end of the connection. */
async function exchange(port: number, sent: Buffer): Promise<Buffer> {
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  const chunks: Buffer[] = []
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.once('end', () => socket.end())
  const cut = random(sent.length + 1)
  socket.write(sent.subarray(0, cut))
  socket.end(sent.subarray(cut))
  if (!socket.closed) await new Promise<void>(resolve => socket.once('close', () => resolve()))
  return Buffer.concat(chunks)
}

/** Decodes all packets of the server strictly: CONNACK is the first one, and nothing follows DISCONNECT. */
function decodeAll(answer: Buffer): Received[] {
  const all: Received[] = []
  let rest = answer
  for (let size = packetSize(rest); size !== undefined; size = packetSize(rest)) {
    const received = decodePacket(rest.subarray(0, size))
    if ((received.type === 'connack') !== (all.length === 0)) throw new Violation('CONNACK is not the first packet')
    if (all.at(-1)?.type === 'disconnect') throw new Violation('a packet follows a DISCONNECT')
    all.push(received)
    rest = rest.subarray(size)
  }
  return all
}

const broker = testedBroker({
  limits: { upgradesPerSecond: 'off', connectTimeout: '300ms', closeTimeout: '200ms' },
})

describe(`${attacks} mutated packets of MQTT 5 (FUZZ_SEED=${seed})`, () => {
  it('get what MQTT 5 allows, or the end, and bystanders notice nothing', async () => {
    const bystanders: [Client, Client] = [await broker.connect(), await broker.connect({ cleanStart: false })]
    for (const each of bystanders) await each.subscribe(['bystander', 1])
    let rounds = 0
    const roundTrip = async (): Promise<void> => {
      const payload = String(++rounds)
      await bystanders[0].publish('bystander', payload, { qos: 1 })
      for (const each of bystanders) expect(await each.message()).toMatchObject({ payload })
    }
    let left = attacks
    const attacker = async (): Promise<void> => {
      while (left-- > 0) {
        if (random(5) === 0) {
          // A mutated CONNECT may be one of another version, with other answers.
          await exchange(broker.port(), Buffer.concat([mutate(wildConnect()), pick(packets)()]))
          continue
        }
        const before = Array.from({ length: random(4) }, () => pick(packets)())
        const sent = Buffer.concat([connect(`fuzz-${random(20)}`), ...before, mutate(pick(packets)()), pingreq])
        const answer = await exchange(broker.port(), sent)
        try {
          decodeAll(answer)
        } catch (error) {
          throw new Error(`${error} in ${answer.toString('hex')} for ${sent.toString('hex')}`)
        }
      }
    }
    let isOver = false
    const attackers = Promise.all(Array.from({ length: atATime }, attacker)).finally(() => {
      isOver = true
    })
    // Awaited below; its error is not lost.
    attackers.catch(() => {})
    while (!isOver) await roundTrip()
    await attackers
    await roundTrip()
  }, 1_200_000)
})
