import { randomInt } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { testedBroker } from '../conformance/broker.js'
import type { Client } from '../conformance/client.js'
import { acknowledgement, type Publish } from '../conformance/packets.js'
import { makeRandom, type Random } from './random.js'

/** The same seed makes the same publications, answers and cuts, though not at the same moments. */
const seed = Number(process.env['FUZZ_SEED'] ?? randomInt(2 ** 31))
/** Sessions in one run; `npm run fuzz` makes them more. */
const sessions = Math.ceil(Number(process.env['FUZZ_RUNS'] ?? 1_200) / 20)
const atATime = 6

const broker = testedBroker()

type Held = { readonly id: number; readonly answer: 'puback' | 'pubrec' | 'pubcomp' }

/**
 * A subscriber with a session that acknowledges at random, now or later, is cut off and comes back. What it gets is checked against what was
 * published: QoS 1 at least once, QoS 2 exactly once, in the order of publication, with the topic and the properties of its message.
 */
class Subscriber {
  readonly #random: Random
  readonly #properties: { receiveMaximum: number; topicAliasMaximum: number; sessionExpiryInterval: number }
  readonly #clientId: string
  readonly #seen = new Map<string, number>()
  /** Messages of QoS 2 without PUBREL, by their identifiers. */
  readonly #unreleased = new Map<number, string>()
  readonly #last = new Map<string, number>()
  readonly violations: string[] = []
  #held: Held[] = []
  #client: Client | undefined
  #isDraining = false
  #onChange = (): void => {}

  constructor(random: Random, clientId: string) {
    this.#random = random
    this.#clientId = clientId
    this.#properties = {
      receiveMaximum: 1 + random.random(6),
      topicAliasMaximum: random.random(3),
      sessionExpiryInterval: 60,
    }
  }

  async connect(): Promise<void> {
    const isFirst = this.#client === undefined
    const client = await broker.open()
    this.#client = client
    this.#held = []
    const connack = await client.connect({
      cleanStart: isFirst,
      clientId: this.#clientId,
      properties: this.#properties,
    })
    expect(connack).toMatchObject({ code: 0, sessionPresent: !isFirst })
    if (isFirst) await client.subscribe([`${this.#clientId}/#`, 2], { subscriptionIdentifier: 5 })
    void this.#read(client)
  }

  async #read(client: Client): Promise<void> {
    try {
      for (let received = await client.next(); received; received = await client.next()) {
        if (received.type === 'publish') this.#take(received)
        else if (received.type === 'pubrel') {
          this.#unreleased.delete(received.id)
          this.#answer({ id: received.id, answer: 'pubcomp' })
        }
        this.#onChange()
      }
    } catch (error) {
      this.violations.push(String(error))
      this.#onChange()
    }
  }

  #take({ topic, payload, qos, id, dup, properties }: Publish): void {
    const { userProperties, subscriptionIdentifier } = properties
    if (topic !== payload.split(' ')[0]) this.violations.push(`${payload} came with the topic ${topic}`)
    if (userProperties?.[0]?.[1] !== payload) this.violations.push(`${payload} came with other properties`)
    if (String(subscriptionIdentifier) !== '5') this.violations.push(`${payload} came without its identifier`)
    const known = this.#unreleased.get(id)
    if (qos === 2 && known !== undefined) {
      if (known !== payload || !dup) this.violations.push(`${payload} came with the identifier of ${known}`)
    } else {
      this.#count(payload, topic, qos)
      if (qos === 2) this.#unreleased.set(id, payload)
    }
    if (qos > 0) this.#answer({ id, answer: qos === 1 ? 'puback' : 'pubrec' })
  }

  #count(payload: string, topic: string, qos: number): void {
    const times = (this.#seen.get(payload) ?? 0) + 1
    this.#seen.set(payload, times)
    if (times > 1) {
      if (qos === 2) this.violations.push(`${payload} of QoS 2 came again`)
      return
    }
    const number = Number(payload.split(' ')[1])
    const order = `${topic} ${qos}`
    if (number < (this.#last.get(order) ?? -1)) this.violations.push(`${payload} came too late`)
    this.#last.set(order, number)
  }

  /** Answers now or later. */
  #answer(held: Held): void {
    if (this.#isDraining || this.#random.random(2) === 0) this.#send(held)
    else this.#held.push(held)
  }

  #send({ id, answer }: Held): void {
    if (answer === 'pubrec') this.#client?.send(acknowledgement('pubrec', id))
    else this.#client?.acknowledge(answer, id)
  }

  /** Gives one of the answers that wait. */
  answerOne(): void {
    if (this.#held.length === 0) return
    for (const held of this.#held.splice(this.#random.random(this.#held.length), 1)) this.#send(held)
  }

  cut(): void {
    this.#client?.destroy()
  }

  /** Answers everything, and resolves when all of these have come. */
  async drain(payloads: readonly string[]): Promise<void> {
    this.#isDraining = true
    for (const held of this.#held.splice(0)) this.#send(held)
    const missing = (): string[] => payloads.filter(payload => !this.#seen.has(payload))
    const late = setTimeout(() => {
      this.violations.push(`these did not come: ${missing()}`)
      this.#onChange()
    }, 10_000)
    while (missing().length > 0 && this.violations.length === 0) {
      await new Promise<void>(resolve => {
        this.#onChange = resolve
      })
    }
    clearTimeout(late)
  }
}

async function play(random: Random, name: string): Promise<readonly string[]> {
  const [subscriber, publisher] = [new Subscriber(random, name), await broker.connect()]
  await subscriber.connect()
  const published: string[] = []
  let count = 0
  for (let step = 0; step < 25; step++) {
    const action = random.random(10)
    if (action < 5) {
      const topic = `${name}/${random.random(3)}`
      const payload = `${topic} ${count++}`
      const qos = random.random(3)
      if (qos > 0) published.push(payload)
      await publisher.publish(topic, payload, { qos, properties: { userProperties: [['payload', payload]] } })
    } else if (action < 9) {
      subscriber.answerOne()
    } else {
      subscriber.cut()
      await subscriber.connect()
    }
  }
  await subscriber.drain(published)
  subscriber.cut()
  publisher.destroy()
  return subscriber.violations
}

describe(`${sessions} sessions at random (FUZZ_SEED=${seed})`, () => {
  it('get every message of QoS 1 and 2, as often as they should and in order', async () => {
    let next = 0
    const player = async (): Promise<void> => {
      for (let number = next++; number < sessions; number = next++) {
        const violations = await play(makeRandom(seed + number), `session${number}-${seed}`)
        expect({ number, violations }).toEqual({ number, violations: [] })
      }
    }
    await Promise.all(Array.from({ length: atATime }, player))
  }, 600_000)
})
