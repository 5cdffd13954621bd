import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Event } from '../../src/journal/event.js'
import type { Receipt, ReceiptStatus } from '../../src/receipts/receipts.js'
import type { StorePlace } from '../contracts/store.js'
import { makeLevelPlace, makeMemoryPlace } from './places.js'
import { ReceiptRig } from './rig.js'

const devices = ['a', 'b', 'c', 'd']
/** As many events as the journal has, and as many receipts and requests as there may be. */
const [maxEvents, maxReceipts, maxRequests] = [5, 8, 4]
const publishers = ['p', 'q', 'r']
/** How long what goes on by itself may take, on a machine with other things to do; in milliseconds. */
const patience = 5000

interface Asked {
  readonly event: Event
  readonly by: string
  readonly from: readonly string[] | 'present'
  readonly devices: readonly string[]
  readonly deadline: number
  readonly answered: Set<string>
  readonly written: Set<string>
  missed: readonly string[] | undefined
}

interface Kept extends Receipt {
  readonly event: Event
  readonly order: number
}

/** What receipts are, without a thought of how they are kept. */
class Model {
  readonly events: Event[] = []
  /** What should have been told, as one text each. */
  readonly told: string[] = []
  present: readonly string[] = []
  #now: number
  #receipts: Kept[] = []
  #requests: Asked[] = []
  #order = 0

  constructor(now: number) {
    this.#now = now
  }

  publish(event: Event): void {
    this.events.push(event)
    this.#forget()
  }

  isThere(event: Event): boolean {
    return this.events.indexOf(event) >= this.events.length - maxEvents || this.#isPending(event)
  }

  #isPending(event: Event): boolean {
    return this.#requests.some(request => request.event === event && request.missed === undefined)
  }

  #forget(): void {
    this.#receipts = this.#receipts.filter(({ event }) => this.isThere(event))
    this.#requests = this.#requests.filter(({ event }) => this.isThere(event))
  }

  record(event: Event, device: string, status: ReceiptStatus): { receipt: Receipt; fresh: boolean } | undefined {
    if (!this.isThere(event)) return undefined
    const known = this.#receipts.find(receipt => receipt.event === event && receipt.device === device)
    if (known && (status === 'received' || known.status !== 'received')) return { receipt: plain(known), fresh: false }
    const kept = { device, status, time: this.#now, event, order: known?.order ?? this.#order++ }
    this.#receipts = this.#receipts.filter(receipt => receipt !== known)
    this.#receipts.push(kept)
    this.#receipts.sort((a, b) => a.order - b.order)
    for (const gone of this.#receipts.splice(0, Math.max(0, this.#receipts.length - maxReceipts))) {
      this.#requests.find(request => request.event === gone.event)?.answered.add(gone.device)
    }
    const time = new Date(this.#now).toISOString()
    this.#tell(event, { type: 'receipt', id: event.id, topic: event.topic, device, status, time })
    return { receipt: plain(kept), fresh: true }
  }

  /** Whether it is taken. */
  request(event: Event, by: string, from: readonly string[] | 'present', within: number): boolean {
    const names = from === 'present' ? ['present'] : from
    const asked = [...new Set(names.flatMap(name => (name === 'present' ? this.present : [name])))].sort()
    const awaited = this.#requests.filter(({ missed }) => missed === undefined)
    const fits = (amount: number, most: number, count: (request: Asked) => number): boolean => {
      const sum = (requests: readonly Asked[]): number => requests.reduce((all, each) => all + count(each), amount)
      const [own, all] = [sum(awaited.filter(request => request.by === by)), sum(awaited)]
      return amount === 0 || (all <= most && own <= Math.max(1, most - all))
    }
    if (!fits(asked.length, maxReceipts, request => request.devices.length)) return false
    if (!fits(1, maxRequests, () => 1)) return false
    if (this.#requests.some(request => request.event === event)) return true
    const isFull = (): boolean => {
      const all = this.#requests.reduce((sum, request) => sum + request.devices.length, asked.length)
      return this.#requests.length >= maxRequests || all > maxReceipts
    }
    const done = [...this.#requests]
      .filter(({ missed }) => missed)
      .sort((a, b) => a.deadline - b.deadline || byPlace(a, b))
    for (const request of done) {
      if (isFull()) this.#requests.splice(this.#requests.indexOf(request), 1)
    }
    const deadline = this.#now + within
    const [answered, written] = [new Set<string>(), new Set<string>()]
    this.#requests.push({ event, by, from, devices: asked, deadline, answered, written, missed: undefined })
    return true
  }

  wrote(event: Event, device: string): void {
    const request = this.#requests.find(each => each.event === event && each.missed === undefined)
    if (request?.devices.includes(device)) request.written.add(device)
  }

  pass(milliseconds: number): void {
    this.#now += milliseconds
    for (const request of this.#requests) {
      const { event, deadline, answered } = request
      if (request.missed !== undefined || deadline > this.#now) continue
      const has = (device: string): boolean => this.#receipts.some(r => r.event === event && r.device === device)
      const missed = request.devices.filter(device => !answered.has(device) && !has(device))
      request.missed = missed
      if (missed.length === 0) continue
      const at = new Date(deadline).toISOString()
      this.#tell(event, { type: 'missed', id: event.id, topic: event.topic, devices: missed, deadline: at })
    }
    this.#forget()
  }

  #tell(event: Event, what: object): void {
    if (!event.topic.startsWith('receipts/')) this.told.push(JSON.stringify({ on: `receipts/${event.topic}`, ...what }))
  }

  report(event: Event) {
    if (!this.isThere(event)) return undefined
    const { id, topic, time } = event
    const request = this.#requests.find(each => each.event === event)
    const requested = request && {
      from: request.from,
      count: request.devices.length,
      devices: request.devices,
      deadline: request.deadline,
      missed: request.missed,
    }
    const written = [...(request?.written ?? [])].sort()
    const receipts = this.#receipts.filter(receipt => receipt.event === event).map(plain)
    receipts.sort((a, b) => (a.device < b.device ? -1 : 1))
    return { event: { id, topic, time }, requested, written, receipts }
  }
}

function byPlace(a: Asked, b: Asked): number {
  return a.event.sequence - b.event.sequence
}

function plain({ device, status, time }: Receipt): Receipt {
  return { device, status, time }
}

const which = fc.nat(100)
const command = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      topic: fc.constantFrom('news', 'a/b', 'receipts/x'),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('record' as const),
      which,
      device: fc.constantFrom(...devices),
      status: fc.constantFrom<ReceiptStatus>('received', 'processed', 'failed'),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('request' as const),
      which,
      from: fc.oneof(
        fc.constant('present' as const),
        fc.array(fc.constantFrom(...devices, 'present'), { minLength: 1, maxLength: 4 }),
      ),
      by: fc.constantFrom(...publishers),
      within: fc.constantFrom(100, 300, 1000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('wrote' as const), which, device: fc.constantFrom(...devices) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('pass' as const), time: fc.constantFrom(1, 100, 250, 2000) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('broker' as const), isThere: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('present' as const), devices: fc.subarray(devices) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('restart' as const, 'crash' as const),
      time: fc.constantFrom(0, 150, 2000),
    }),
  },
)
type Command = typeof command extends fc.Arbitrary<infer T> ? T : never

/** Does the same to both, and compares them after each step. */
class Comparison {
  readonly model: Model
  readonly seen = { fresh: 0, gone: 0, full: 0, missed: 0, crashes: 0 }
  readonly #rig: ReceiptRig
  #crashed = false

  constructor(rig: ReceiptRig) {
    this.#rig = rig
    this.model = new Model(rig.clock.now())
  }

  async step(each: Command): Promise<void> {
    const { clock, journal, publisher } = this.#rig
    if (each.kind === 'publish') this.model.publish(await this.#rig.publish(each.topic))
    else if (each.kind === 'broker') publisher.connected = each.isThere
    else if (each.kind === 'present') {
      this.#rig.present = each.devices
      this.model.present = each.devices
    } else if (each.kind === 'pass') {
      clock.pass(each.time)
      this.model.pass(each.time)
    } else if (each.kind === 'restart' || each.kind === 'crash') {
      await this.#restart(each.kind === 'crash', each.time)
    } else if (each.kind === 'record' || each.kind === 'request' || each.kind === 'wrote') {
      const event = this.model.events[each.which % (this.model.events.length || 1)]
      if (event) await this.#about(event, each)
    }
    expect(journal.head).toBe(this.model.events.length)
    await this.#compare()
  }

  async #about(event: Event, each: Extract<Command, { kind: 'record' | 'request' | 'wrote' }>): Promise<void> {
    const { receipts, tracking } = this.#rig
    if (each.kind === 'wrote') {
      tracking.wroteOne(each.device, event.sequence)
      this.model.wrote(event, each.device)
    } else if (each.kind === 'record') {
      const { device, status } = each
      const wanted = this.model.record(event, device, status)
      expect(await receipts.record(event.id, { device, status })).toEqual(wanted)
      if (wanted?.fresh) this.seen.fresh++
      if (!wanted) this.seen.gone++
      // What is asked for is published just now.
    } else if (this.model.isThere(event)) {
      const { from, within, by } = each
      const isTaken = await this.#rig.ask(event, { from, within }, by).then(
        () => true,
        () => false,
      )
      expect(isTaken).toBe(this.model.request(event, by, from, within))
      if (!isTaken) this.seen.full++
    }
  }

  async #restart(isCrash: boolean, time: number): Promise<void> {
    const { clock, receipts } = this.#rig
    if (isCrash) {
      this.#crashed = true
      this.seen.crashes++
      await this.#rig.crash()
    } else await receipts.close()
    clock.pass(time)
    this.model.pass(time)
    await this.#rig.open()
  }

  /** Waits until what goes on by itself has come to where the model is. */
  async #compare(): Promise<void> {
    let got: unknown
    const wanted = this.model.events.map(event => this.model.report(event))
    for (const end = performance.now() + patience; performance.now() < end; ) {
      got = await Promise.all(this.model.events.map(({ id }) => this.#rig.receipts.report(id)))
      if (JSON.stringify(got) === JSON.stringify(wanted)) break
      await new Promise(setImmediate)
    }
    expect(got).toEqual(wanted)
  }

  /** All has been told that should be, and nothing else; after a crash, it may be twice. */
  async end(): Promise<void> {
    const { publisher, clock } = this.#rig
    publisher.connected = true
    this.model.pass(10_000)
    clock.pass(10_000)
    const told = (): string[] => {
      const all = publisher.told().map(message => JSON.stringify(message))
      return (this.#crashed ? [...new Set(all)] : all).sort()
    }
    const wanted = (this.#crashed ? [...new Set(this.model.told)] : this.model.told).sort()
    const end = performance.now() + patience
    while (told().length < wanted.length && performance.now() < end) {
      clock.pass(100)
      this.model.pass(100)
      await new Promise(setImmediate)
    }
    await this.#compare()
    expect(told()).toEqual(wanted)
    this.seen.missed += wanted.filter(text => text.includes('"missed"')).length
  }
}

describe('receipts do as a model has it, whatever comes, and whatever ends in between', () => {
  it.each([
    ['in memory', makeMemoryPlace, 300],
    ['on disk', makeLevelPlace, 60],
  ])(
    '%s',
    async (_name, makePlace: () => Promise<StorePlace>, numRuns) => {
      const seen = { fresh: 0, gone: 0, full: 0, missed: 0, crashes: 0 }
      await fc.assert(
        fc.asyncProperty(fc.array(command, { minLength: 5, maxLength: 50, size: 'max' }), async commands => {
          const rig = await ReceiptRig.start(await makePlace(), { maxEvents, maxReceipts, maxRequests })
          const comparison = new Comparison(rig)
          try {
            for (const each of commands) await comparison.step(each)
            await comparison.end()
          } finally {
            await rig.close()
          }
          for (const [name, count] of Object.entries(comparison.seen)) seen[name as 'fresh'] += count
        }),
        // Where something is wrong, each attempt at a shorter example takes as long as the patience.
        { numRuns, interruptAfterTimeLimit: 80_000, markInterruptAsFailure: true },
      )
      // The property is worth something only where all this happened.
      for (const [name, count] of Object.entries(seen)) expect([name, count > numRuns / 60]).toEqual([name, true])
    },
    120_000,
  )
})
