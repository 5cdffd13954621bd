import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { createLog } from '../../src/base/log.js'
import { type Broker, internalPeer } from '../../src/broker/broker.js'
import type { EmbeddedBroker } from '../../src/broker/embedded/embedded.js'
import type { Event } from '../../src/journal/event.js'
import { type Journal, type JournalBounds, JournalRefusal, type Urgency } from '../../src/journal/journal.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import type { Message } from '../../src/mqtt/message.js'
import { type EmbeddedSourceOptions, openEmbeddedSource } from '../../src/sources/embedded.js'
import { openSession, type SessionOptions } from '../../src/sources/mqtt/session.js'
import type { Source } from '../../src/sources/publisher.js'
import { RememberedSubscriptions } from '../../src/sources/remembered-subscriptions.js'

export const log = createLog({ level: 'silent', format: 'json' })

export const bounds: JournalBounds = {
  maxEvents: 1_000_000,
  maxBytes: 2 ** 30,
  maxAge: 86_400_000,
  maxRetained: 100_000,
  maxRetainedBytes: 2 ** 28,
  maxWaiting: 10_000,
  maxWaitingBytes: 2 ** 26,
}

/** A message of QoS 1, unless it says otherwise. */
export const message = (topic: string, payload: string, more: Partial<Message> = {}): Message => ({
  topic,
  payload: Buffer.from(payload),
  qos: 1,
  retain: false,
  ...more,
})

/** What a journal got, in order, to be waited for. */
export class Watched {
  readonly events: Event[] = []
  #onEvents: (() => void) | undefined

  constructor(journal: Pick<Journal, 'watch'>) {
    journal.watch(events => {
      this.events.push(...events)
      this.#onEvents?.()
    })
  }

  /** Resolves when there are so many. */
  async count(count: number): Promise<readonly Event[]> {
    while (this.events.length < count) {
      await new Promise<void>(resolve => {
        this.#onEvents = resolve
      })
    }
    return this.events
  }

  payloads(): string[] {
    return this.events.map(({ payload }) => payload.toString())
  }
}

/** A journal that refuses as the test says. */
export class Balking extends MemoryJournal {
  refuse: 'unavailable' | 'busy' | undefined
  /** How often it has refused. */
  refused = 0

  override append(appended: Message, urgency?: Urgency): Promise<Event> {
    if (!this.refuse) return super.append(appended, urgency)
    this.refused++
    return Promise.reject(new JournalRefusal(this.refuse))
  }
}

/** A journal whose disk takes its time. */
export class SlowJournal extends MemoryJournal {
  /** How many messages it was to take. */
  asked = 0
  #gate = Promise.resolve()
  #open = (): void => {}

  hold(): void {
    this.#gate = new Promise(resolve => {
      this.#open = resolve
    })
  }

  letGo(): void {
    this.#open()
  }

  override async append(appended: Message): Promise<Event> {
    this.asked++
    await this.#gate
    return super.append(appended)
  }
}

/** Takes down what a test made, the last first. */
export class Cleanup {
  readonly #steps: (() => unknown)[] = []

  add(step: () => unknown): void {
    this.#steps.push(step)
  }

  async directory(): Promise<string> {
    const path = await mkdtemp(join(tmpdir(), 'mqway-session-'))
    this.add(() => rm(path, { recursive: true, force: true }))
    return path
  }

  async run(): Promise<void> {
    for (const step of this.#steps.splice(0).reverse()) await step()
  }
}

/** Where a source on a broker differs from the usual. */
export interface SourceOptions extends Partial<Omit<SessionOptions, 'config'>> {
  readonly config?: Partial<SessionOptions['config']>
  /** Treats the built-in broker as one elsewhere: opens an MQTT session with it. */
  readonly asUpstream?: boolean
  /** Only for the built-in broker. */
  readonly packetSize?: EmbeddedSourceOptions['packetSize']
  /** Only for the built-in broker. */
  readonly ackTimeout?: EmbeddedSourceOptions['ackTimeout']
}

/** Opens the source that suits `broker`, with what a test does not care about: its own for the built-in one, else an MQTT session. */
export function sessionOn(broker: Broker, journal: Journal, options: SourceOptions = {}): Promise<Source> {
  const { asUpstream = false, packetSize, ackTimeout, config: given, ...more } = options
  const isInMemory = journal instanceof MemoryJournal
  const config = {
    topics: ['#'],
    journal: isInMemory ? ('memory' as const) : ('level' as const),
    username: undefined,
    password: undefined,
    clientId: undefined,
    ...given,
  }
  if (isEmbedded(broker) && !asUpstream) {
    const { topics } = config
    const { data, publishTimeout } = more
    const remembered = new RememberedSubscriptions(isInMemory ? undefined : data)
    return openEmbeddedSource({ broker, journal, topics, remembered, packetSize, ackTimeout, publishTimeout, log })
  }
  return openSession({
    brokerName: broker.name,
    open: () => broker.open(internalPeer),
    data: undefined,
    journal,
    log,
    ...more,
    config,
  })
}

function isEmbedded(broker: Broker): broker is EmbeddedBroker {
  return broker.name === 'embedded'
}

/** A connection to `broker` that ends where its CONNECT is of one of these versions (MQTT 3.1.1 §3.1.2.2). */
export async function openWithout(broker: Broker, versions: readonly number[]): Promise<Duplex> {
  const stream = await broker.open(internalPeer)
  const write = stream.write.bind(stream)
  // The byte behind the protocol name.
  const isRefused = (chunk: Buffer): boolean => chunk[0] === 0x10 && versions.includes(chunk[8] ?? 0)
  return Object.assign(stream, {
    write: (chunk: Buffer, ...more: []) => {
      if (!isRefused(chunk)) return write(chunk, ...more)
      stream.destroy()
      return false
    },
  })
}

/** The versions that a broker is not to take, by the form of MQTT that is left. */
export const refusedVersions = { 'MQTT 5': [], 'MQTT 3.1.1 as a bridge': [5], 'MQTT 3.1.1': [5, 0x84] } as const

/** What `journal` has as retained. */
export async function retainedOf(
  journal: Journal,
  filters: readonly string[] = ['#'],
): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for await (const events of journal.retained(filters, { after: 0, through: journal.head })) {
    for (const { topic, payload } of events) found[topic] = payload.toString()
  }
  return found
}
