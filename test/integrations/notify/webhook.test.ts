import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Webhook } from 'standardwebhooks'
import { describe, expect, it, onTestFinished } from 'vitest'
import { describeWith } from '../../helpers/requires.js'
import { eventually } from '../../helpers/wait.js'
import { type Receiver, startReceiver } from './receiver.js'
import { makeCertificate, NotifyRig } from './rig.js'

const secret = `whsec_${Buffer.alloc(32, 'a').toString('base64')}`
const former = `whsec_${Buffer.alloc(24, 'b').toString('base64')}`
const hour = 3_600_000

type RuleInput = Parameters<typeof NotifyRig.start>[0][number]

async function receiver(...args: Parameters<typeof startReceiver>): Promise<Receiver> {
  const started = await startReceiver(...args)
  onTestFinished(() => started.close())
  return started
}

async function started(...rules: RuleInput[]): Promise<NotifyRig> {
  const rig = await NotifyRig.start(rules)
  onTestFinished(() => rig.close())
  return rig
}

function ruleOf({ url }: { readonly url: string }, webhook: object = {}, rule: object = {}): RuleInput {
  return { name: 'orders', topics: ['#'], webhook: { url, secret, ...webhook }, ...rule }
}

/** Has the clock go on until a condition holds. */
async function passUntil(rig: NotifyRig, condition: () => boolean, step = 100): Promise<void> {
  while (!condition()) await rig.pass(step)
  await rig.settle()
}

/** The lines of the dead-letter log. */
function deadLetters({
  directory,
}: NotifyRig): { reason: string; events: { payload: string }[]; [key: string]: unknown }[] {
  const file = join(directory, 'dead-letters.jsonl')
  if (!existsSync(file)) return []
  return (
    readFileSync(file, 'utf8')
      .split('\n')
      // What follows the last line end is being written.
      .slice(0, -1)
      .map(line => JSON.parse(line))
  )
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => String(from + index))

describe('a webhook', () => {
  it('is called with events as the push API has them, signed as the library of Standard Webhooks signs', async () => {
    const { url, calls } = await receiver()
    const rig = await started(ruleOf({ url: `${url}?a=b` }, { previousSecret: former }))
    const { id } = await rig.publish('t/1', 'ünï\u2028😀')
    await rig.publish('t/2', Buffer.from([0, 255]))
    await passUntil(rig, () => calls.length > 0)
    const [call] = calls
    expect(call?.path).toBe('/hook?a=b')
    expect(call?.json).toEqual({
      rule: 'orders',
      events: [
        { id, topic: 't/1', time: '2030-01-01T00:00:00.000Z', payload: 'ünï\u2028😀' },
        expect.objectContaining({ topic: 't/2', payloadBase64: 'AP8=' }),
      ],
    })
    const { headers, body = '' } = call ?? {}
    const webhookId = String(headers?.['webhook-id'])
    const time = new Date(Number(headers?.['webhook-timestamp']) * 1000)
    expect(time.toISOString()).toMatch(/^2030-01-01T00:00:00/)
    const signatures = [secret, former].map(each => new Webhook(each).sign(webhookId, time, body))
    expect(headers?.['webhook-signature']).toBe(signatures.join(' '))
    expect(headers).toMatchObject({
      'content-type': 'application/json',
      'user-agent': expect.stringMatching(/^mqway\//),
    })
  })

  it('gets all events in order, a batch at a time, also when it fails in between', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook, { maxEvents: 40 }))
    let fails = 0
    hook.answer = (response, call) => {
      const isRefused = hook.calls.length % 3 !== 0
      if (isRefused) fails++
      else hook.payloads.push(...call.json.events.map(({ payload }) => payload ?? ''))
      response.writeHead(isRefused ? 500 : 204).end()
    }
    for (const number of numbers(0, 150)) await rig.publish('t', number)
    await passUntil(rig, () => hook.payloads.length >= 50)
    for (const number of numbers(150, 200)) await rig.publish('t', number)
    await passUntil(rig, () => hook.payloads.length >= 200)
    expect(hook.payloads).toEqual(numbers(0, 200))
    expect(hook.mostAtOnce).toBe(1)
    expect(fails).toBeGreaterThanOrEqual(10)
    expect(Math.max(...hook.calls.map(({ json }) => json.events.length))).toBe(40)
    // The attempts of a call are one call.
    const bodies = new Map(hook.calls.map(({ headers, body }) => [headers['webhook-id'], body]))
    expect(bodies.size).toBe(hook.calls.length / 3)
    expect(hook.calls.every(({ headers, body }) => bodies.get(headers['webhook-id']) === body)).toBe(true)
    expect(rig.webhooks?.get('orders')).toMatchObject({ collected: 200, waiting: 0, failed: 0, retried: fails })
  })

  it('is called again after a time that grows, or that it asks for', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook))
    hook.answer = response => {
      const { length } = hook.calls
      if (length === 5) response.writeHead(429, { 'retry-after': '120' }).end()
      else if (length === 6)
        response.writeHead(503, { 'retry-after': new Date(rig.clock.now() + 90_000).toUTCString() }).end()
      else response.writeHead(500).end()
    }
    await rig.publish('t', 'x')
    await passUntil(rig, () => hook.calls.length >= 7, 500)
    const waits = rig.logged.flatMap(({ msg }) => {
      const [, seconds] = /next attempt in (\d+) s/.exec(String(msg)) ?? []
      return seconds === undefined ? [] : [Number(seconds)]
    })
    for (const [index, wait] of waits.slice(0, 4).entries()) {
      expect(wait).toBeGreaterThanOrEqual(Math.max(1, 2 ** index / 2))
      expect(wait).toBeLessThanOrEqual(2 ** index)
    }
    expect(waits[4]).toBe(120)
    // The clock goes on during the call.
    expect(waits[5]).toBeGreaterThanOrEqual(45)
    expect(waits[5]).toBeLessThanOrEqual(90)
    hook.answer = 200
    await passUntil(rig, () => hook.payloads.length === 1, 10_000)
  })

  it.each([
    [
      'redirects',
      (hook: Receiver) => (hook.answer = response => response.writeHead(307, { location: hook.url }).end()),
      'redirects are not followed',
    ],
    [
      'resets the connection',
      (hook: Receiver) => (hook.answer = response => response.socket?.resetAndDestroy()),
      'socket hang up',
    ],
    [
      'changes the protocol',
      (hook: Receiver) =>
        (hook.answer = response => response.writeHead(101, { upgrade: 'x', connection: 'upgrade' }).end()),
      'closed the connection',
    ],
    [
      'has headers without an end',
      (hook: Receiver) => {
        hook.answer = response => response.socket?.write(`HTTP/1.1 200 OK\r\n${'x: y\r\n'.repeat(20_000)}`)
      },
      'Header overflow',
    ],
    ['says nothing', (hook: Receiver) => (hook.answer = () => {}), 'no response within 150 ms'],
  ])('that %s has not accepted the call', async (_, fail, error) => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook, { timeout: '150ms' }))
    fail(hook)
    await rig.publish('t', 'x')
    await passUntil(rig, () =>
      rig.logged.some(({ msg }) => String(msg).startsWith('Failed to send a webhook call; next')),
    )
    expect(JSON.stringify(rig.logged)).toMatch(new RegExp(`${error}|ECONNRESET`))
    expect(hook.calls).toHaveLength(1)
    hook.answer = 200
    await passUntil(rig, () => hook.payloads.length === 1)
  })

  it('that never ends its response has accepted the call by its status, and gets the next one', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook, { maxEvents: 1 }))
    hook.answer = (response, { json }) => {
      response.writeHead(200)
      hook.payloads.push(...json.events.map(({ payload }) => payload ?? ''))
      const chunk = Buffer.alloc(65_536)
      const more = (): void => {
        while (response.write(chunk));
      }
      response.on('drain', more)
      more()
    }
    for (const number of numbers(0, 3)) await rig.publish('t', number)
    await passUntil(rig, () => hook.payloads.length >= 3)
    await passUntil(rig, () => rig.webhooks?.get('orders')?.waiting === 0)
    expect(hook.payloads).toEqual(numbers(0, 3))
  })

  it('that is slow, or away, delays no other one, and no mail', async () => {
    const [slow, fast] = [await receiver(), await receiver()]
    slow.answer = () => {}
    const away = { url: 'http://127.0.0.1:1/' }
    const rig = await started(
      ruleOf(slow, {}, { name: 'slow' }),
      ruleOf(away, {}, { name: 'away' }),
      ruleOf(fast, {}, { name: 'fast' }),
      { topics: ['#'], to: ['ops@example.org'], collect: '0ms' },
    )
    for (const number of numbers(0, 5)) {
      await rig.publish('t', number)
      await passUntil(rig, () => fast.payloads.includes(number))
    }
    await passUntil(rig, () => rig.mails.length > 0)
    expect(fast.payloads).toEqual(numbers(0, 5))
    expect(slow.calls).toHaveLength(1)
    expect(rig.webhooks?.get('slow')?.waiting).toBe(5)
    expect(rig.webhooks?.get('away')?.waiting).toBe(5)
  })

  it('that fails for too long has its events in the dead-letter log, and gets those after them', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook, { giveUpAfter: '1h', maxEvents: 2 }))
    hook.answer = 500
    for (const number of numbers(0, 5)) await rig.publish('t', number)
    await passUntil(rig, () => hook.calls.length > 0)
    await passUntil(rig, () => rig.webhooks?.get('orders')?.waiting === 0, 10_000)
    expect(deadLetters(rig).map(({ events }) => events.map(({ payload }) => payload))).toEqual([
      ['0', '1'],
      ['2', '3'],
      ['4'],
    ])
    expect(deadLetters(rig)[0]).toMatchObject({
      rule: 'orders',
      reason: 'given-up',
      id: hook.calls[0]?.headers['webhook-id'],
    })
    expect(statSync(join(rig.directory, 'dead-letters.jsonl')).mode & 0o777).toBe(0o600)
    expect(rig.webhooks?.get('orders')).toMatchObject({ failed: 3, waiting: 0 })
    hook.answer = 200
    await rig.publish('t', 'after')
    await passUntil(rig, () => hook.payloads.length > 0, 1000)
    expect(hook.payloads).toEqual(['after'])
    expect(hook.calls.at(-1)?.json.dropped).toBe(5)
  })

  it('that is gone is called no more until the next start', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook))
    rig.durable = true
    await rig.stop()
    await rig.open()
    hook.answer = 410
    await rig.publish('t', '1')
    await passUntil(rig, () => deadLetters(rig).length === 1)
    for (const number of numbers(2, 4)) {
      await rig.publish('t', number)
      await passUntil(rig, () => deadLetters(rig).length === Number(number))
    }
    expect(deadLetters(rig).map(({ reason, events }) => [reason, events[0]?.payload])).toEqual([
      ['gone', '1'],
      ['gone', '2'],
      ['gone', '3'],
    ])
    expect(hook.calls).toHaveLength(1)
    expect(rig.logged.filter(({ msg }) => String(msg).includes('410'))).toHaveLength(1)
    hook.answer = 200
    await rig.stop()
    await rig.open()
    await rig.publish('t', '4')
    await passUntil(rig, () => hook.payloads.length > 0)
    expect(hook.payloads).toEqual(['4'])
    expect(hook.calls.at(-1)?.json.dropped).toBe(3)
  })

  it('is told how many events its queue had no room for', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook, { maxQueued: 3, maxEvents: 2 }))
    hook.answer = 500
    await rig.publish('t', '0')
    await passUntil(rig, () => hook.calls.length > 0)
    for (const number of numbers(1, 8)) await rig.publish('t', number)
    await eventually(() => rig.webhooks?.get('orders')?.collected === 8)
    expect(rig.webhooks?.get('orders')).toMatchObject({ waiting: 4, dropped: 4, collected: 8 })
    expect(deadLetters(rig).flatMap(({ events }) => events.map(({ payload }) => payload))).toEqual(numbers(4, 8))
    expect(deadLetters(rig)[0]).toMatchObject({ rule: 'orders', reason: 'queue-full' })
    hook.answer = 200
    await passUntil(rig, () => hook.payloads.length === 4)
    expect(hook.payloads).toEqual(numbers(0, 4))
    expect(hook.calls.map(({ json }) => json.dropped).filter(dropped => dropped !== undefined)).toEqual([4])
  })

  it('gets a payload that is too large as its size, in its place in the order', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook))
    await rig.publish('t/1', 'before')
    await rig.publish('t/2', Buffer.alloc(1024 ** 2 + 1, 'x'))
    await rig.publish('t/3', Buffer.alloc(300_000, '\u0001'))
    await rig.publish('t/4', Buffer.alloc(500_000, 'y'))
    await rig.publish('t/5', 'after')
    const events = () => hook.calls.flatMap(({ json }) => json.events)
    await passUntil(rig, () => events().length === 5)
    expect(events().map(({ topic }) => topic)).toEqual(['t/1', 't/2', 't/3', 't/4', 't/5'])
    expect(events()[1]).toEqual({
      id: expect.any(String),
      topic: 't/2',
      time: expect.any(String),
      payloadBytes: 1024 ** 2 + 1,
    })
    expect(events()[2]).toMatchObject({ payloadBytes: 300_000 })
    expect(events()[3]?.payload).toHaveLength(500_000)
  })

  it('is told of a broker that is away and of missing receipts', async () => {
    const hook = await receiver()
    const rig = await started(
      ruleOf(hook, {}, { name: 'broker', topics: [], events: ['broker-away', 'broker-back'] }),
      ruleOf(hook, {}, { name: 'receipts', topics: ['receipts/#'], when: { type: 'missed' } }),
    )
    rig.connected = false
    await passUntil(rig, () => hook.calls.length === 1, 1000)
    expect(hook.calls[0]?.json).toEqual({
      rule: 'broker',
      events: [
        { event: 'broker-away', time: expect.stringMatching(/^2030/), text: expect.stringContaining('unavailable') },
      ],
    })
    await rig.publish('receipts/printer', { type: 'missed', id: 'e-1', devices: ['p7'] })
    await rig.publish('receipts/printer', { type: 'received', id: 'e-1', device: 'p8' })
    await passUntil(rig, () => hook.calls.length === 2)
    expect(hook.calls[1]?.json).toMatchObject({ rule: 'receipts', events: [{ topic: 'receipts/printer' }] })
  })

  it('has a queue that outlives mqway, and the same id in the next attempt', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook))
    rig.durable = true
    await rig.stop()
    await rig.open()
    hook.answer = 500
    await rig.publish('t', '0')
    await passUntil(rig, () => hook.calls.length > 0)
    await rig.publish('t', '1')
    await rig.settle()
    await rig.stop()
    const first = hook.calls[0]
    const before = hook.calls.length
    hook.answer = 200
    await rig.publish('t', '2')
    await rig.open()
    await passUntil(rig, () => hook.payloads.length === 3)
    expect(hook.payloads).toEqual(numbers(0, 3))
    expect(hook.calls[before]?.headers['webhook-id']).toBe(first?.headers['webhook-id'])
    expect(hook.calls[before]?.body).toBe(first?.body)
  })

  it('whose rule no longer exists has its events in the dead-letter log', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook))
    rig.durable = true
    await rig.stop()
    await rig.open()
    hook.answer = 500
    await rig.publish('t', '0')
    await passUntil(rig, () => hook.calls.length > 0)
    await rig.publish('t', '1')
    await rig.settle()
    await rig.stop()
    await rig.open([{ name: 'orders', topics: ['none'], to: ['ops@example.org'] }])
    await passUntil(rig, () => deadLetters(rig).length === 2)
    expect(deadLetters(rig).map(({ rule, reason, events }) => [rule, reason, events[0]?.payload])).toEqual([
      ['orders', 'rule-removed', '0'],
      ['orders', 'rule-removed', '1'],
    ])
  })

  it('has a secret in a file that may change between calls', async () => {
    const hook = await receiver()
    const rig = await NotifyRig.start([{ topics: ['none'], to: ['ops@example.org'] }])
    onTestFinished(() => rig.close())
    const file = join(rig.directory, 'secret')
    writeFileSync(file, `${former}\n`)
    await rig.stop()
    await rig.open([ruleOf(hook, { secret: undefined, secretFile: 'secret' })])
    const signatures = () => hook.calls.map(({ headers }) => String(headers['webhook-signature']).split(' ').length)
    await rig.publish('t', '0')
    await passUntil(rig, () => hook.calls.length === 1)
    writeFileSync(file, `${secret}\r\n${former}\r\n`)
    await rig.publish('t', '1')
    await passUntil(rig, () => hook.calls.length === 2)
    expect(signatures()).toEqual([1, 2])
    writeFileSync(file, 'none')
    await rig.publish('t', '2')
    await passUntil(rig, () =>
      rig.logged.some(({ msg }) => String(msg).startsWith('Failed to send a webhook call; next')),
    )
    writeFileSync(file, secret)
    await passUntil(rig, () => hook.calls.length === 3)
    expect(hook.payloads).toEqual(numbers(0, 3))
    expect(JSON.stringify(rig.logged)).not.toContain(secret.slice('whsec_'.length))
  })

  it('has no start with a secret that is none', async () => {
    const rig = await started({ topics: ['none'], to: ['ops@example.org'] })
    writeFileSync(join(rig.directory, 'secret'), 'whsec_AAAA\n')
    await rig.stop()
    const opened = rig.open([ruleOf({ url: 'http://127.0.0.1:1/' }, { secret: undefined, secretFile: 'secret' })])
    await expect(opened).rejects.toThrow('webhook.secretFile of orders: each line must be whsec_ and')
    await rig.open()
  })

  it('is called no more often than atMost says', async () => {
    const hook = await receiver()
    const rig = await started(ruleOf(hook, {}, { atMost: { count: 2, per: '1h' } }))
    for (const number of numbers(0, 4)) {
      await rig.publish('t', number)
      await rig.pass(1000)
    }
    await passUntil(rig, () => hook.payloads.length === 2)
    await rig.pass(hour - 60_000)
    expect(hook.payloads).toEqual(['0', '1'])
    await passUntil(rig, () => hook.payloads.length === 4, 1000)
    expect(hook.calls.map(({ json }) => json.events.length)).toEqual([1, 1, 2])
  })
})

describeWith('openssl', 'a webhook over TLS', () => {
  it('is called only with a certificate that is trusted', async () => {
    const rig = await started({ topics: ['none'], to: ['ops@example.org'] })
    const files = makeCertificate(rig.directory)
    const hook = await receiver({ cert: readFileSync(files.cert), key: readFileSync(files.key) })
    await rig.stop()
    await rig.open([ruleOf(hook)])
    await rig.publish('t', '0')
    await passUntil(rig, () => JSON.stringify(rig.logged).includes('self-signed certificate'))
    expect(hook.calls).toEqual([])
    await rig.stop()
    await rig.open([ruleOf(hook, { ca: files.cert })])
    await rig.publish('t', '1')
    await passUntil(rig, () => hook.payloads.length > 0)
    await eventually(() => hook.payloads.includes('1'))
  })
})
