import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/base/errors.js'
import { createLog } from '../../src/base/log.js'
import { openHub } from '../../src/hub/hub.js'
import { formatId } from '../../src/journal/event.js'
import { MemoryJournal } from '../../src/journal/memory-journal.js'
import { openReceipts } from '../../src/receipts/open-receipts.js'
import { message, wide } from '../contracts/journal.js'
import type { StorePlace } from '../contracts/store.js'
import { eventually } from '../helpers/wait.js'
import { lineEncoder, TestSink } from '../hub/rig.js'
import { makeLevelPlace, makeMemoryPlace } from './places.js'
import { ReceiptRig } from './rig.js'

const log = createLog({ level: 'silent', format: 'json' })

describe.each([
  ['in memory', makeMemoryPlace],
  ['on disk', makeLevelPlace],
])('receipts %s', (_name, makePlace: () => Promise<StorePlace>) => {
  let rig: ReceiptRig
  const start = async (bounds: Parameters<typeof ReceiptRig.start>[1] = {}): Promise<void> => {
    rig = await ReceiptRig.start(await makePlace(), bounds)
  }
  beforeEach(() => start())
  afterEach(() => rig.close())
  const restart = async (bounds: Parameters<typeof ReceiptRig.start>[1]): Promise<void> => {
    await rig.close()
    await start(bounds)
  }
  /** Waits until so many messages are published; where the broker was away, time has to pass. */
  const told = async (count: number, pass = 0) => {
    await eventually(() => {
      if (pass > 0) rig.clock.pass(pass)
      return rig.publisher.messages.length >= count
    })
    expect(rig.publisher.messages).toHaveLength(count)
    return rig.publisher.told()
  }

  describe('that devices send', () => {
    it('are kept, and told on receipts/<topic> with QoS 1', async () => {
      const { id, time } = await rig.publish('news/eu')
      rig.clock.pass(5)
      const receipt = { device: 'd1', status: 'received', time: rig.clock.now() }
      expect(await rig.receipts.record(id, { device: 'd1', status: 'received' })).toEqual({ receipt, fresh: true })
      expect(await rig.receipts.report(id)).toEqual({
        event: { id, topic: 'news/eu', time },
        requested: undefined,
        written: [],
        receipts: [receipt],
      })
      expect(await told(1)).toEqual([
        {
          on: 'receipts/news/eu',
          type: 'receipt',
          id,
          topic: 'news/eu',
          device: 'd1',
          status: 'received',
          time: '2030-01-01T00:00:00.005Z',
        },
      ])
      expect(rig.publisher.messages[0]).toMatchObject({ qos: 1, retain: false })
    })

    it('go forward only: what is the same or earlier changes nothing and is not told', async () => {
      const { id } = await rig.publish()
      const say = async (status: 'received' | 'processed' | 'failed', detail?: string) => {
        rig.clock.pass(1000)
        const said = await rig.receipts.record(id, { device: 'd', status, detail })
        return [said?.receipt.status, said?.receipt.detail, said?.fresh]
      }
      expect(await say('received')).toEqual(['received', undefined, true])
      expect(await say('received', 'again')).toEqual(['received', undefined, false])
      expect(await say('failed', 'no room')).toEqual(['failed', 'no room', true])
      expect(await say('received')).toEqual(['failed', 'no room', false])
      expect(await say('processed')).toEqual(['failed', 'no room', false])
      expect((await told(2)).map(({ status, detail }) => [status, detail])).toEqual([
        ['received', undefined],
        ['failed', 'no room'],
      ])
    })

    it('are acknowledgements over MQTT, of devices that are asked, until the deadline', async () => {
      const request = { from: ['d1', 'd2', 'd3'], within: 1000 }
      const asked = await rig.publish('news/eu')
      const { id } = asked
      const other = await rig.publish('news/eu')
      const acknowledge = (device: string, user?: string) => rig.receipts.acknowledged(id, { device, user })
      expect(await acknowledge('d1')).toBe(false)
      await rig.ask(asked, request)
      expect(await Promise.all([acknowledge('d1'), acknowledge('other'), acknowledge('d2', 'd2')])).toEqual([
        true,
        false,
        true,
      ])
      expect(await acknowledge('d1')).toBe(false)
      expect(await rig.receipts.acknowledged(other.id, { device: 'd1', user: undefined })).toBe(false)
      expect(await rig.receipts.acknowledged('x', { device: 'd1', user: undefined })).toBe(false)
      const detail = 'acknowledged over MQTT'
      expect(await told(2)).toMatchObject([
        { on: 'receipts/news/eu', device: 'd1', status: 'received', detail },
        { on: 'receipts/news/eu', device: 'd2', user: 'd2', status: 'received', detail },
      ])
      await rig.receipts.record(id, { device: 'd1', status: 'processed' })
      rig.clock.pass(1000)
      expect((await told(4)).at(-1)).toMatchObject({ type: 'missed', devices: ['d3'] })
      expect(await acknowledge('d3')).toBe(false)
      expect((await rig.receipts.report(id))?.receipts).toMatchObject([
        { device: 'd1', status: 'processed' },
        { device: 'd2', status: 'received', detail },
      ])
    })

    it('are acknowledgements that come before the message is an event', async () => {
      const reservation = rig.receipts.reserve('news', { from: ['d1', 'd2'], within: 1000 }, 'me')
      for (const device of ['d1', 'other']) reservation.acknowledged({ device, user: undefined })
      const event = await rig.publish('news')
      await reservation.confirm(event)
      reservation.acknowledged({ device: 'd2', user: undefined })
      expect(await told(2)).toMatchObject([{ device: 'd1' }, { device: 'd2' }])
    })

    it('are kept of an event that has expired', async () => {
      const { id } = await rig.journal.append(message('t', 'x', { expires: 1 }))
      expect(await rig.receipts.record(id, { device: 'd', status: 'received' })).toMatchObject({ fresh: true })
    })

    it('are of devices with any name, each on its own, and can be listed in parts', async () => {
      const { id } = await rig.publish()
      const devices = ['a', 'a/b', 'a0', 'ü', '\u{1f600}', 'z'.repeat(255)]
      for (const device of devices) await rig.receipts.record(id, { device, status: 'processed' })
      const all = (await rig.receipts.report(id))?.receipts.map(({ device }) => device)
      expect([...(all ?? [])].sort()).toEqual([...devices].sort())
      const parts: string[] = []
      for (let after: string | undefined; ; after = parts.at(-1)) {
        const report = await rig.receipts.report(id, { limit: 2, after })
        if (report?.receipts.length === 0) break
        parts.push(...(report?.receipts ?? []).map(({ device }) => device))
      }
      expect(parts).toEqual(all)
    })

    it('are of no use for an event that is not there', async () => {
      const { id, sequence } = await rig.publish()
      const { epoch } = rig.journal
      const unknown = [
        '',
        'x',
        `${id}0`,
        formatId(epoch, sequence + 1),
        formatId(epoch, 0),
        formatId('0'.repeat(15), 1),
      ]
      for (const text of unknown) {
        expect(await rig.receipts.record(text, { device: 'd', status: 'received' })).toBeUndefined()
        expect(await rig.receipts.report(text)).toBeUndefined()
        expect(await rig.receipts.topicOf(text)).toBeUndefined()
      }
      expect(await rig.receipts.topicOf(id)).toBe('news')
    })

    it('of what is told about receipts are kept, and not told: there would be no end', async () => {
      const { id } = await rig.publish('receipts/news')
      expect(await rig.receipts.record(id, { device: 'd', status: 'received' })).toMatchObject({ fresh: true })
      const other = await rig.publish('receiptsnews')
      await rig.receipts.record(other.id, { device: 'd', status: 'received' })
      expect((await told(1)).map(({ on }) => on)).toEqual(['receipts/receiptsnews'])
    })

    it('are not told where the topic for that would be larger than the broker takes', async () => {
      await restart({ topic: { topicLevels: 3, topicLength: 20 } })
      for (const topic of ['a/b/c', 'a/b', 'x'.repeat(12), 'x'.repeat(11)]) {
        const { id } = await rig.publish(topic)
        expect(await rig.receipts.record(id, { device: 'd', status: 'received' })).toMatchObject({ fresh: true })
      }
      expect((await told(2)).map(({ topic }) => topic)).toEqual(['a/b', 'x'.repeat(11)])
    })
  })

  it('are listed in parts, of which none is larger than is asked for', async () => {
    rig.present = Array.from({ length: 300 }, (_, index) => `d${index}`)
    const event = await rig.publish()
    await rig.ask(event, { from: 'present', within: 1000 })
    for (const device of rig.present) {
      rig.tracking.wroteOne(device, event.sequence)
      await rig.receipts.record(event.id, { device, status: 'failed', detail: 'x'.repeat(100) })
    }
    await eventually(async () => (await rig.receipts.report(event.id))?.written.length === 300)
    const parts = { devices: [] as string[], written: [] as string[], receipts: [] as string[] }
    const next = { ...parts }
    const page = async (after: string | undefined) =>
      rig.receipts.report(event.id, { limit: 100, after, maxText: 2000 })
    for (const list of ['devices', 'written', 'receipts'] as const) {
      for (;;) {
        const report = await page(parts[list].at(-1))
        next.devices = [...(report?.requested?.devices ?? [])]
        next.written = [...(report?.written ?? [])]
        next.receipts = (report?.receipts ?? []).map(({ device }) => device)
        expect(next.receipts.length).toBeLessThan(20)
        if (next[list].length === 0) break
        parts[list].push(...next[list])
      }
    }
    const all = [...rig.present].sort()
    expect(parts).toEqual({ devices: all, written: all, receipts: all })
    expect((await page(undefined))?.requested?.count).toBe(300)
  })

  it('of somebody who proves who they are go before those of anybody who says so', async () => {
    const { id } = await rig.publish()
    const say = async (status: 'received' | 'processed' | 'failed', user?: string) => {
      const said = await rig.receipts.record(id, { device: 'alice', status, user })
      return [said?.receipt.status, said?.receipt.user, said?.fresh]
    }
    expect(await say('failed')).toEqual(['failed', undefined, true])
    expect(await say('received', 'alice')).toEqual(['received', 'alice', true])
    expect(await say('failed')).toEqual(['received', 'alice', false])
    expect(await say('processed', 'alice')).toEqual(['processed', 'alice', true])
    expect((await told(3)).map(({ user }) => user)).toEqual([undefined, 'alice', 'alice'])
  })

  describe('are bounded', () => {
    it('in number: the oldest go, whatever event they are of', async () => {
      await restart({ maxReceipts: 3 })
      const [first, second] = [await rig.publish(), await rig.publish()]
      await rig.receipts.record(second.id, { device: 'a', status: 'received' })
      for (const device of ['b', 'c', 'd']) await rig.receipts.record(first.id, { device, status: 'received' })
      expect((await rig.receipts.report(second.id))?.receipts).toEqual([])
      expect((await rig.receipts.report(first.id))?.receipts.map(({ device }) => device)).toEqual(['b', 'c', 'd'])
    })

    it('by the journal: with an event, its receipts are gone', async () => {
      await restart({ maxEvents: 2, maxReceipts: 4 })
      const { id } = await rig.publish()
      for (const device of ['a', 'b']) await rig.receipts.record(id, { device, status: 'received' })
      const [kept] = [await rig.publish(), await rig.publish()]
      expect(await rig.receipts.record(id, { device: 'c', status: 'received' })).toBeUndefined()
      expect(await rig.receipts.report(id)).toBeUndefined()
      // They take no room from others.
      for (const device of ['a', 'b', 'c', 'd']) await rig.receipts.record(kept.id, { device, status: 'received' })
      expect((await rig.receipts.report(kept.id))?.receipts).toHaveLength(4)
    })

    it('and forgotten in portions where very many events are gone at once', async () => {
      await restart({ maxEvents: 1500, maxReceipts: 5000 })
      for (let index = 0; index < 1500; index++) {
        const { id } = await rig.publish()
        for (const device of ['a', 'b']) await rig.receipts.record(id, { device, status: 'received' })
      }
      for (let index = 0; index < 1500; index++) await rig.publish()
      const { id } = await rig.publish()
      for (let index = 0; index < 2500; index++) {
        await rig.receipts.record(id, { device: `d${index}`, status: 'received' })
      }
      const report = await rig.receipts.report(id, { limit: 10_000 })
      expect(report?.receipts).toHaveLength(2500)
      await eventually(() => rig.publisher.messages.length === 5500)
    }, 60_000)
  })

  describe('that a publisher asks for', () => {
    it('and that are missing at the deadline are told, once', async () => {
      const event = await rig.publish('news')
      await rig.ask(event, { from: ['a', 'b', 'c', 'a'], within: 1000 })
      await rig.receipts.record(event.id, { device: 'b', status: 'failed' })
      await told(1)
      rig.clock.pass(999)
      const deadline = rig.clock.now() + 1
      expect((await rig.receipts.report(event.id))?.requested).toEqual({
        from: ['a', 'b', 'c', 'a'],
        count: 3,
        devices: ['a', 'b', 'c'],
        deadline,
        missed: undefined,
      })
      rig.clock.pass(1)
      const [, missed] = await told(2)
      expect(missed).toEqual({
        on: 'receipts/news',
        type: 'missed',
        id: event.id,
        topic: 'news',
        devices: ['a', 'c'],
        deadline: '2030-01-01T00:00:01.000Z',
      })
      expect((await rig.receipts.report(event.id))?.requested?.missed).toEqual(['a', 'c'])
      await rig.restart()
      rig.clock.pass(100_000)
      await rig.receipts.record(event.id, { device: 'a', status: 'received' })
      expect((await told(3)).map(({ type }) => type)).toEqual(['receipt', 'missed', 'receipt'])
      expect(rig.counts).toEqual({ stored: 2, missed: 2 })
      expect(rig.receipts.outstanding).toEqual({ devices: 0, events: 0 })
      expect(rig.clock.timers).toBe(0)
    })

    it('are those of all who are present', async () => {
      rig.present = ['x', 'y']
      const event = await rig.publish()
      await rig.ask(event, { from: 'present', within: 500 })
      rig.present = []
      rig.clock.pass(500)
      expect((await told(1))[0]).toMatchObject({ type: 'missed', devices: ['x', 'y'] })
      const nobody = await rig.publish()
      await rig.ask(nobody, { from: 'present', within: 500 })
      rig.clock.pass(500)
      await eventually(async () => (await rig.receipts.report(nobody.id))?.requested?.missed !== undefined)
      expect((await rig.receipts.report(nobody.id))?.requested).toMatchObject({
        from: 'present',
        devices: [],
        missed: [],
      })
      await told(1)
    })

    it('are told in several messages where very many are missing', async () => {
      await restart({ maxReceipts: 2000 })
      rig.present = Array.from({ length: 1000 }, (_, index) => `device-${index + 1000}`)
      const event = await rig.publish()
      await rig.ask(event, { from: 'present', within: 500 })
      rig.clock.pass(500)
      const messages = await told(2)
      expect(messages.flatMap(({ devices }) => devices)).toEqual(rig.present)
    })

    it('have one timer, for the nearest deadline', async () => {
      for (const within of [5000, 3000, 4000]) {
        await rig.ask(await rig.publish(String(within)), { from: ['a'], within })
        expect(rig.clock.timers).toBe(1)
      }
      for (const [pass, topic] of [
        [3000, '3000'],
        [1000, '4000'],
        [1000, '5000'],
      ] as const) {
        const count = rig.publisher.messages.length
        rig.clock.pass(pass)
        expect((await told(count + 1)).at(-1)).toMatchObject({ topic })
        await eventually(() => rig.clock.timers === (topic === '5000' ? 0 : 1))
      }
    })

    it('are waited for over a restart, and told at the start where the deadline was meanwhile', async () => {
      const [early, late] = [await rig.publish('early'), await rig.publish('late')]
      await rig.ask(early, { from: ['a'], within: 1000 })
      await rig.ask(late, { from: ['a'], within: 10_000 })
      await rig.receipts.close()
      rig.clock.pass(2000)
      expect(rig.publisher.messages).toEqual([])
      await rig.open()
      rig.clock.pass(0)
      expect((await told(1))[0]).toMatchObject({ type: 'missed', topic: 'early' })
      await rig.receipts.record(late.id, { device: 'a', status: 'received' })
      rig.clock.pass(10_000)
      await eventually(async () => (await rig.receipts.report(late.id))?.requested?.missed !== undefined)
      expect((await told(2))[1]).toMatchObject({ type: 'receipt', topic: 'late' })
    })

    it('can come until the deadline when the journal has let go of the event', async () => {
      await restart({ maxEvents: 2 })
      const event = await rig.publish('gone')
      await rig.ask(event, { from: ['a', 'b'], within: 1000 })
      for (let index = 0; index < 5; index++) await rig.publish()
      expect(await rig.receipts.record(event.id, { device: 'a', status: 'processed' })).toMatchObject({ fresh: true })
      await rig.restart()
      expect(await rig.receipts.report(event.id)).toMatchObject({
        event: { topic: 'gone', time: event.time },
        receipts: [{ device: 'a' }],
      })
      rig.clock.pass(1000)
      expect((await told(2))[1]).toMatchObject({ type: 'missed', devices: ['b'] })
      await eventually(async () => (await rig.receipts.report(event.id)) === undefined)
      expect(await rig.receipts.record(event.id, { device: 'b', status: 'received' })).toBeUndefined()
    })

    it('are no fewer because they had to go: who has answered has not missed the deadline', async () => {
      await restart({ maxReceipts: 4 })
      const event = await rig.publish('asked')
      await rig.ask(event, { from: ['a', 'b'], within: 1000 })
      await rig.receipts.record(event.id, { device: 'a', status: 'received' })
      const other = await rig.publish('other')
      for (const device of ['1', '2', '3', '4']) await rig.receipts.record(other.id, { device, status: 'received' })
      expect((await rig.receipts.report(event.id))?.receipts).toEqual([])
      rig.clock.pass(1000)
      expect((await told(6)).at(-1)).toMatchObject({ type: 'missed', devices: ['b'] })
    })

    it('leave nothing behind of those who were not asked, however many answer until the deadline', async () => {
      await restart({ maxReceipts: 4 })
      const event = await rig.publish('asked')
      await rig.ask(event, { from: ['a'], within: 1000 })
      for (let index = 0; index < 50; index++) {
        await rig.receipts.record(event.id, { device: `d${index}`, status: 'received' })
      }
      await told(50)
      await eventually(async () => (await rig.entries()) <= 12)
    })

    it('are told in messages that brokers take, however long the names are', async () => {
      rig.present = Array.from({ length: 300 }, (_, index) => `${index + 1000}`.padStart(255, 'x'))
      const event = await rig.publish()
      await rig.ask(event, { from: 'present', within: 500 })
      rig.clock.pass(500)
      const messages = await told(3)
      expect(messages.flatMap(({ devices }) => devices)).toEqual(rig.present)
      for (const { payload } of rig.publisher.messages) expect(payload.length).toBeLessThan(64 * 1024)
    })

    it('are refused where too many are waited for, and again taken when some have come or are missing', async () => {
      await restart({ maxReceipts: 10, maxRequests: 8 })
      let said = ''
      const ask = async (by: string, count: number, within = 1000): Promise<string> => {
        const from = Array.from({ length: count }, (_, index) => `d${index}`)
        const asked = async () => rig.ask(await rig.publish(), { from, within }, by)
        return asked().then(
          () => 'ok',
          (error: GatewayError) => {
            said = error.text
            return error.reason
          },
        )
      }
      // One alone has half of them; others find room all the same, and no more than is left for others again.
      expect([await ask('a', 6), await ask('a', 4), await ask('a', 2), await ask('a', 1, 500)]).toEqual([
        'too-many-receipts',
        'ok',
        'too-many-receipts',
        'ok',
      ])
      expect([await ask('b', 3), await ask('b', 2), await ask('c', 2), await ask('c', 1)]).toEqual([
        'receipts-full',
        'ok',
        'receipts-full',
        'ok',
      ])
      expect(said).toContain('there is room for 10 devices in all (push.maxReceipts)')
      // Of nobody at all, events may be waited for, too.
      expect([await ask('a', 0), await ask('a', 0)]).toEqual(['ok', 'receipts-full'])
      expect(said).toContain('there is room for 8 messages in all')
      rig.clock.pass(500)
      await told(1)
      expect([await ask('d', 1), await ask('d', 1)]).toEqual(['ok', 'receipts-full'])
      rig.clock.pass(1000)
      await told(5)
      expect(await ask('a', 5)).toBe('ok')
    })

    it('are counted for whoever asked also after a restart, and while they are about to be asked for', async () => {
      await restart({ maxReceipts: 10 })
      const request = (...from: string[]) => ({ from, within: 1000 })
      await rig.ask(await rig.publish(), request('d', 'e', 'f'), 'a')
      await rig.restart()
      const tooMany = expect.objectContaining({
        reason: 'too-many-receipts',
        text: expect.stringContaining('may wait for 5 (half of push.maxReceipts)'),
      })
      expect(() => rig.receipts.reserve('news', request('d', 'e', 'f'), 'a')).toThrow(tooMany)
      const reservation = rig.receipts.reserve('news', request('d', 'e'), 'a')
      expect(() => rig.receipts.reserve('news', request('d'), 'a')).toThrow(tooMany)
      reservation.cancel()
      reservation.cancel()
      const again = rig.receipts.reserve('news', request('d', 'e'), 'a')
      rig.diskIsFull = true
      await expect(again.confirm(await rig.publish())).rejects.toMatchObject({ reason: 'journal-unavailable' })
      rig.diskIsFull = false
      await rig.ask(await rig.publish(), request('d', 'e'), 'a')
      expect(() => rig.receipts.reserve('news', request('d'), 'a')).toThrow(tooMany)
    })

    it('are those of all who are present and of others besides', async () => {
      rig.present = ['x', 'y']
      const event = await rig.publish()
      await rig.ask(event, { from: ['present', 'z', 'x'], within: 500 })
      expect((await rig.receipts.report(event.id))?.requested).toMatchObject({
        from: ['present', 'z', 'x'],
        count: 3,
        devices: ['x', 'y', 'z'],
      })
    })

    it('are forgotten with a journal that is lost, and what was to be told is not', async () => {
      const event = await rig.publish('news')
      rig.publisher.connected = false
      await rig.ask(event, { from: ['a'], within: 1000 })
      await rig.receipts.record(event.id, { device: 'b', status: 'received' })
      await rig.receipts.close()
      const another = new MemoryJournal({ bounds: wide, log, clock: () => rig.clock.now() + 1 })
      await rig.open(another)
      expect(await rig.receipts.report(event.id)).toBeUndefined()
      rig.publisher.connected = true
      expect((await told(1, 100))[0]).toMatchObject({ type: 'receipt', id: event.id })
      await another.close()
    })
  })

  it('that nobody waits for are told no faster than is allowed; all are kept', async () => {
    let room = 1
    await restart({ mayPublish: () => room-- > 0, maxMessages: 6 })
    const event = await rig.publish('news')
    await rig.ask(event, { from: ['asked', 'other'], within: 1000 })
    for (const device of ['a', 'b', 'asked']) await rig.receipts.record(event.id, { device, status: 'received' })
    expect((await told(2)).map(({ device }) => device)).toEqual(['a', 'asked'])
    expect((await rig.receipts.report(event.id))?.receipts).toHaveLength(3)
    // They leave room to those that are waited for, also where the broker is away.
    room = 100
    rig.publisher.connected = false
    for (const device of ['c', 'd', 'e', 'f', 'other']) {
      await rig.receipts.record(event.id, { device, status: 'received' })
    }
    rig.publisher.connected = true
    expect((await told(6, 100)).slice(2).map(({ device }) => device)).toEqual(['c', 'd', 'e', 'other'])
  })

  describe('that cannot be told just now', () => {
    it('are kept, and told when the broker is back, in their order', async () => {
      const { id } = await rig.publish()
      rig.publisher.connected = false
      for (const status of ['received', 'processed'] as const) await rig.receipts.record(id, { device: 'd', status })
      for (let index = 0; index < 50; index++) {
        await rig.receipts.record(id, { device: `d${index}`, status: 'received' })
      }
      await rig.restart()
      rig.publisher.connected = true
      rig.publisher.failsWith = new GatewayError('publish-timeout')
      await eventually(() => {
        rig.clock.pass(100)
        return rig.publisher.attempts > 20
      })
      rig.publisher.failsWith = undefined
      const messages = await told(52, 100)
      expect(messages.slice(0, 3).map(({ device, status }) => [device, status])).toEqual([
        ['d', 'received'],
        ['d', 'processed'],
        ['d0', 'received'],
      ])
      await rig.restart()
      await told(52)
    })

    it('are not told again after a crash, if they are in the journal', async () => {
      const { id } = await rig.publish()
      const publish = rig.publisher.publish.bind(rig.publisher)
      const appended: unknown[] = []
      rig.publisher.publish = async message => {
        appended.push(await rig.journal.append(message))
        // The process ends before it can store that.
        return new Promise(() => {})
      }
      for (const device of ['a', 'b']) await rig.receipts.record(id, { device, status: 'received' })
      await eventually(() => appended.length > 0)
      await rig.crash()
      rig.publisher.publish = publish
      await rig.open()
      await rig.receipts.record(id, { device: 'c', status: 'received' })
      const devices = (await told(3 - appended.length)).map(({ device }) => device)
      expect(devices).toEqual(['b', 'c'].slice(appended.length - 1))
    })

    it('are not told again without an answer, if they are in the journal', async () => {
      const { id } = await rig.publish()
      const publish = rig.publisher.publish.bind(rig.publisher)
      rig.publisher.publish = async message => {
        rig.publisher.publish = publish
        await rig.journal.append(message)
        throw new GatewayError('publish-timeout')
      }
      for (const device of ['a', 'b']) await rig.receipts.record(id, { device, status: 'received' })
      expect((await told(1, 100))[0]).toMatchObject({ device: 'b' })
      await rig.receipts.record(id, { device: 'c', status: 'received' })
      expect((await told(2, 100)).map(({ device: of }) => of)).toEqual(['b', 'c'])
    })

    it('are let go of where the broker never takes them, and those after them are told', async () => {
      const { id } = await rig.publish('refused')
      rig.publisher.failsWith = new GatewayError('topic-refused')
      await rig.receipts.record(id, { device: 'd', status: 'received' })
      await eventually(() => rig.publisher.attempts === 1)
      await rig.restart()
      rig.publisher.failsWith = undefined
      await rig.receipts.record(id, { device: 'e', status: 'received' })
      expect((await told(1))[0]).toMatchObject({ device: 'e' })
    })

    it('are let go of, the oldest first, where too many wait', async () => {
      await restart({ maxMessages: 3 })
      rig.publisher.connected = false
      const event = await rig.publish()
      await rig.ask(event, { from: ['1', '2', '3', '4', '5'], within: 60_000 })
      const { id } = event
      for (const device of ['1', '2', '3', '4', '5']) await rig.receipts.record(id, { device, status: 'received' })
      rig.publisher.connected = true
      expect((await told(3, 100)).map(({ device }) => device)).toEqual(['3', '4', '5'])
      expect((await rig.receipts.report(id))?.receipts).toHaveLength(5)
    })
  })

  it('are refused while they cannot be written down, and nothing that was taken is lost', async () => {
    const event = await rig.publish('news')
    await rig.ask(event, { from: ['a', 'b'], within: 1000 })
    rig.diskIsFull = true
    const refused = { reason: 'journal-unavailable' }
    await expect(rig.receipts.record(event.id, { device: 'a', status: 'received' })).rejects.toMatchObject(refused)
    const other = await rig.publish('other')
    await expect(rig.ask(other, { from: ['a'], within: 1000 })).rejects.toMatchObject(refused)
    expect(rig.tracking.size).toBe(1)
    // Its deadline cannot be dealt with either, for a while.
    rig.clock.pass(1000)
    await eventually(() => rig.clock.timers === 1)
    expect(rig.publisher.messages).toEqual([])
    rig.diskIsFull = false
    expect(await rig.receipts.record(event.id, { device: 'b', status: 'received' })).toMatchObject({ fresh: true })
    expect((await told(2))[1]).toMatchObject({ type: 'missed', topic: 'news', devices: ['a'] })
    expect((await rig.receipts.report(other.id))?.requested).toBeUndefined()
  })

  it('are asked for once, whoever asks again', async () => {
    const event = await rig.publish('news')
    await rig.ask(event, { from: ['a'], within: 1000 })
    await rig.ask(event, { from: ['b', 'c'], within: 10 })
    expect((await rig.receipts.report(event.id))?.requested?.devices).toEqual(['a'])
    rig.clock.pass(1000)
    expect((await told(1))[0]).toMatchObject({ devices: ['a'] })
    expect([rig.tracking.size, rig.clock.timers]).toEqual([0, 0])
  })

  it('know to which of the devices that were asked an event was written', async () => {
    const { journal, publisher, clock } = rig
    await rig.receipts.close()
    const recent = { maxEvents: 100, maxBytes: 1e6 }
    const hub = await openHub({ journal, bounds: { maxQueuedEvents: 10, maxQueuedBytes: 1e6, recent }, log })
    const store = await (await makePlace()).open()
    const presence = rig.presence
    const { tracking } = hub
    const receipts = await openReceipts({
      ...{ store, journal, publisher, presence, tracking, clock, log },
      bounds: { maxReceipts: 100 },
    })
    const { encode } = lineEncoder()
    const subscribe = (device: string, filters: string[], more = {}) => {
      const sink = new TestSink()
      hub.subscribe({ filters, encode, sink, device, ...more })
      return sink
    }
    const before = await rig.publish('news/eu')
    const live = subscribe('live', ['news/+', 'news/eu'])
    subscribe('other', ['sport/#'])
    subscribe('unasked', ['#'])
    await eventually(() => live.isLive)
    const event = await rig.publish('news/eu')
    // As soon as it is published, and so before it is written.
    await receipts
      .reserve('news', { from: ['live', 'late', 'other', 'away'], within: 60_000 }, 'somebody')
      .confirm(event)
    const written = async () => [...((await receipts.report(event.id))?.written ?? [])].sort()
    await eventually(async () => (await written()).length > 0)
    expect(await written()).toEqual(['live'])
    const late = subscribe('late', ['news/#'], { cursor: before.id })
    await eventually(() => late.isLive)
    await eventually(async () => (await written()).length > 1)
    expect(await written()).toEqual(['late', 'live'])
    expect(tracking.size).toBe(1)
    clock.pass(60_000)
    await eventually(() => tracking.size === 0)
    const tooLate = subscribe('away', ['#'], { cursor: before.id })
    await eventually(() => tooLate.isLive)
    expect(await written()).toEqual(['late', 'live'])
    hub.close()
    await receipts.close()
  })
})
