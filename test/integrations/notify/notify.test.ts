import { describe, expect, it, onTestFinished } from 'vitest'
import { NotifyRig } from './rig.js'

const minute = 60_000
const hour = 60 * minute
const ops = 'ops@example.org'
const exits = ['supervisor/+/+/EXITED']

async function started(...args: Parameters<typeof NotifyRig.start>): Promise<NotifyRig> {
  const rig = await NotifyRig.start(...args)
  onTestFinished(() => rig.close())
  return rig
}

describe('mails', () => {
  it('say of a crash what crashmail says', async () => {
    const rig = await started([{ topics: exits, to: [ops] }], { sendmail: 'sendmail', subjectPrefix: 'web1' })
    await rig.exit('cat', { time: '2026-11-21T14:00:00.123Z' })
    await rig.pass(10_000)
    const [mail] = await rig.sent(1)
    expect(mail?.args).toBe('-i -f mqway@example.org -- ops@example.org')
    expect(mail?.headers.get('subject')).toBe('web1: cat crashed at 2026-11-21 14:00:00 UTC')
    expect(mail?.headers.get('from')).toBe('mqway@example.org')
    expect(mail?.headers.get('to')).toBe(ops)
    expect(mail?.headers.get('auto-submitted')).toBe('auto-generated')
    expect(mail?.text.trimEnd()).toBe('Process cat in group cat exited unexpectedly (pid 2766) from state RUNNING')
  })

  it('are about the processes and the members that their rule names, and nothing else', async () => {
    const rig = await started([
      {
        name: 'crashes',
        topics: exits,
        when: { expected: false },
        processes: ['cat', 'pets:*', 'x:dog'],
        to: [ops],
        collect: '0ms',
      },
      {
        name: 'levels',
        topics: ['log/#'],
        when: { level: ['error', 50], 'from.host': 'a' },
        to: [ops],
        collect: '0ms',
      },
    ])
    await rig.exit('cat', { expected: true })
    await rig.exit('dog')
    await rig.exit('rat', { groupname: 'petshop' })
    await rig.publish('log/a', { level: 'info', from: { host: 'a' } })
    await rig.publish('log/a', { level: 'error', from: { host: 'b' } })
    await rig.publish('log/a', 'level: error')
    await rig.publish('log/a', { level: 'error', from: null })
    await rig.publish('other', { level: 50, from: { host: 'a' } })
    await rig.pass(minute)
    for (const publish of [
      () => rig.exit('cat'),
      () => rig.exit('rat', { groupname: 'pets' }),
      () => rig.exit('dog', { groupname: 'x' }),
      () => rig.publish('log/b', { level: 50, from: { host: 'a' } }),
    ]) {
      await publish()
      await rig.pass(1)
    }
    const mails = await rig.sent(4)
    expect(mails.map(({ headers }) => headers.get('subject'))).toEqual([
      expect.stringMatching(/^cat crashed at/),
      expect.stringMatching(/^rat crashed at/),
      expect.stringMatching(/^dog crashed at/),
      'Message on log/b',
    ])
  })

  it('say what the rule has them say', async () => {
    const text = '{{{rule}}} {topic} {json.a.b} {json.list} {json.none}|{payload}'
    const rig = await started([{ name: 'mine', topics: ['#'], to: [ops], subject: '{json.a.b} at {time}', text }])
    await rig.publish('t/1', { a: { b: 'ünï' }, list: [1, 'x'] })
    await rig.pass(10_000)
    const [mail] = await rig.sent(1)
    expect(mail?.headers.get('subject')).toBe('ünï at 2030-01-01 00:00:00 UTC')
    expect(mail?.text.trimEnd()).toBe('{mine} t/1 ünï [1,"x"] |{"a":{"b":"ünï"},"list":[1,"x"]}')
  })

  it.each([
    ['deeper than any stack', `{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
    ['with members that are no texts', '{"a":{"toString":1}}'],
    [
      'that looks like a process',
      '{"processname":"a","state":"FATAL","eventname":"PROCESS_STATE_","pid":{"toString":1}}',
    ],
    ['with a name that is none', '{"processname":{"toString":1},"groupname":{"toString":1}}'],
    ['that looks like missing receipts', '{"type":"missed","devices":[{"toString":1}],"id":{},"topic":{}}'],
  ])('are sent of JSON %s, and of what comes after it', async (_, payload) => {
    const rig = await started([
      { name: 'usual', topics: ['#'], to: [ops], collect: '0ms' },
      { name: 'own', topics: ['#'], to: [ops], collect: '0ms', text: '{json.a}' },
      { name: 'processes', topics: ['#'], to: [ops], collect: '0ms', processes: ['x'] },
    ])
    await rig.publish('receipts/t', payload)
    await rig.pass(1)
    await rig.publish('t', { processname: 'x' })
    await rig.pass(1)
    await rig.sent(5)
    expect(rig.logged.filter(({ level }) => level === 50)).toEqual([])
  })

  it('have no orders for a terminal in them, and no half characters', async () => {
    const rig = await started([{ topics: ['#'], to: [ops], subject: '{json.a}', text: '{json.a}' }])
    await rig.publish('t', `{"a":"x\\u001b[31m\\u0000\\ud800\\ny${'😀'.repeat(100)}"}`)
    await rig.pass(10_000)
    const [mail] = await rig.sent(1)
    expect(mail?.text.trimEnd()).toBe(`x [31m \ufffd\ny${'😀'.repeat(100)}`)
    expect(mail?.headers.get('subject')).toBe(`x [31m \ufffd y${'😀'.repeat(95)}`)
  })

  it('tell of a burst together, of no more than a hundred in full', async () => {
    const rig = await started([{ topics: exits, to: [ops], collect: '30s' }])
    for (let index = 0; index < 150; index++) await rig.exit(`cat${index}`)
    await rig.pass(29_999)
    expect(rig.mails).toEqual([])
    await rig.pass(1)
    const [mail] = await rig.sent(1)
    expect(mail?.headers.get('subject')).toMatch(/^cat0 crashed at .* \(and 149 more\)$/)
    expect(mail?.text).toContain('Process cat99 in group')
    expect(mail?.text).not.toContain('Process cat100 in group')
    expect(mail?.text).toContain('50 more are not shown.')
    await rig.pass(24 * hour)
    expect(rig.mails).toHaveLength(1)
  })

  it('are no more in any time than atMost says; the rest comes together when it may', async () => {
    const rig = await started([{ topics: ['#'], to: [ops], collect: '1s', atMost: { count: 2, per: '1h' } }])
    for (const [index, payload] of ['a', 'b', 'c', 'd'].entries()) {
      await rig.publish('t', payload)
      await rig.pass(1000)
      await rig.sent(Math.min(index + 1, 2))
      await rig.pass(10 * minute - 1000)
    }
    // The first was made 1 s after the beginning, and now is 40 minutes after it.
    await rig.pass(20 * minute)
    expect(rig.mails).toHaveLength(2)
    await rig.pass(1000)
    const mails = await rig.sent(3)
    expect(mails.at(-1)?.headers.get('subject')).toBe('Message on t (and 1 more)')
    expect(mails.at(-1)?.text).toMatch(/c[\s\S]*-{60}[\s\S]*d/)
  })

  it('go to each recipient in a mail of its own, so that one who gets none delays nobody', async () => {
    const rig = await started([{ topics: ['#'], to: ['A <a@example.org>', 'b@example.org'] }])
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    const mails = await rig.sent(2)
    expect(mails.map(({ args }) => args.split(' ').at(-1))).toEqual(['a@example.org', 'b@example.org'])
    expect(mails.map(({ headers }) => headers.get('to'))).toEqual(Array(2).fill('A <a@example.org>, b@example.org'))
    expect(mails[0]?.headers.get('message-id')).toBe(mails[1]?.headers.get('message-id'))
  })

  it('that cannot be sent are tried again, ever more slowly, and arrive once', async () => {
    const rig = await started([{ topics: ['#'], to: [ops] }])
    rig.isAway = true
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    for (const [attempt, wait] of [30_000, 60_000, 120_000].entries()) {
      await rig.told('next attempt in', attempt + 1)
      await rig.pass(wait - 2)
      expect(rig.attempts).toBe(attempt + 1)
      if (attempt === 2) rig.isAway = false
      await rig.pass(2)
    }
    await rig.sent(1)
    await rig.pass(24 * hour)
    expect(rig.mails).toHaveLength(1)
    expect(JSON.stringify(rig.logged)).toContain('The queue is full')
  })

  it('wait for a sendmail that is not there', async () => {
    const rig = await started([{ topics: ['#'], to: [ops] }])
    rig.program = undefined
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('next attempt in 30 s')
    rig.program = NotifyRig.taking
    await rig.pass(30_000)
    await rig.sent(1)
  })

  it.each([
    ['comes to no end', 'echo $$ > attempts; exec cat <&2', 'timed out'],
    ['fails, and leaves something behind', 'cat <&2 &\necho $! > attempts; exit 75', 'ended with 75'],
  ])('wait for a sendmail that %s', async (_, program, reason) => {
    const rig = await started([{ topics: ['#'], to: [ops] }])
    await rig.stop()
    rig.sendmailTime = 1500
    rig.program = program
    await rig.open()
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('next attempt in 30 s')
    expect(JSON.stringify(rig.logged)).toContain(reason)
    rig.killLeftover()
  })

  it('are sent when sendmail has ended, whatever it leaves behind', async () => {
    const rig = await started([{ topics: ['#'], to: [ops] }])
    rig.program = 'cat <&2 &\necho $! > attempts'
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('Sent a mail')
    rig.killLeftover()
  })

  it('that cannot be sent for too long are given up, with an error in the log', async () => {
    const rig = await started([{ topics: ['#'], to: [ops] }], { sendmail: 'sendmail', giveUpAfter: '1m' })
    rig.isAway = true
    await rig.publish('t', 'x')
    await rig.pass(10_000)
    await rig.told('next attempt in 30 s')
    await rig.pass(31_000)
    await rig.told('given up')
    expect(rig.logged.find(({ msg }) => String(msg).includes('given up'))).toMatchObject({ level: 50, recipient: ops })
    rig.isAway = false
    await rig.pass(24 * hour)
    expect(rig.mails).toEqual([])
  })

  it('wait for room where the texts of those that wait are large, and then come together', async () => {
    const rig = await started([{ topics: ['#'], to: [ops], collect: '1s' }])
    await rig.stop()
    rig.maxQueuedLength = 20_000
    await rig.open()
    rig.isAway = true
    for (const letter of ['a', 'b', 'c']) {
      await rig.publish('t', letter.repeat(15_000))
      await rig.pass(1000)
    }
    await rig.told('next attempt in', 1)
    expect(rig.figures).toMatchObject({ waiting: 1, retried: 1 })
    rig.isAway = false
    await rig.passUntil('Sent a mail', 2)
    expect(rig.mails.map(({ text }) => [...new Set(text.match(/a{9}|b{9}|c{9}/g))].length)).toEqual([1, 2])
    expect(rig.figures).toEqual({ sent: 2, failed: 0, retried: 1, waiting: 0, collected: 3, dropped: 0 })
  })

  it('are told of nothing twice and of nothing not at all when mqway is started anew', async () => {
    const rules = [{ topics: ['#'], to: [ops], collect: '30s' }]
    const rig = await started(rules)
    await rig.stop()
    rig.durable = true
    await rig.open()
    await rig.publish('t', 'collected')
    await rig.settle()
    await rig.stop()
    await rig.publish('t', 'while it was away')
    rig.isAway = true
    await rig.open()
    await rig.passUntil('next attempt in')
    await rig.stop()
    await rig.publish('t', 'while there was a mail to be sent')
    rig.isAway = false
    await rig.open()
    await rig.passUntil('Sent a mail', 2)
    expect(rig.mails).toHaveLength(2)
    expect(rig.mails[0]?.text).toMatch(/collected[\s\S]*while it was away/)
    expect(rig.mails[1]?.text.trim()).toBe('while there was a mail to be sent')
    await rig.stop()
    await rig.open()
    for (let passed = 0; passed < 100; passed++) await rig.pass(10_000)
    expect(rig.mails).toHaveLength(2)
  })

  it('are about news: not about what is retained, and not about what is over', async () => {
    const rig = await NotifyRig.start([{ topics: ['other'], to: [ops] }])
    onTestFinished(() => rig.close())
    await rig.stop()
    await rig.publish('t', 'old', true)
    await rig.open([{ topics: ['#'], to: [ops] }])
    await rig.publish('t', '', true)
    await rig.pass(minute)
    expect(rig.mails).toEqual([])
    await rig.publish('t', 'new', true)
    await rig.pass(minute)
    await rig.sent(1)
  })

  it('tell that the broker is away for half a minute, and that it is back', async () => {
    const rig = await started([{ events: ['broker-away', 'broker-back'], to: [ops], collect: '0ms' }])
    rig.connected = false
    for (let waited = 0; waited < 20; waited += 5) await rig.pass(5000)
    rig.connected = true
    await rig.pass(5000)
    rig.connected = false
    for (let waited = 0; waited < 30; waited += 5) await rig.pass(5000)
    expect(rig.mails).toEqual([])
    for (let waited = 0; waited < 30; waited += 5) await rig.pass(5000)
    await rig.sent(1)
    rig.connected = true
    await rig.pass(5000)
    await rig.pass(1)
    const mails = await rig.sent(2)
    expect(mails.map(({ headers }) => headers.get('subject'))).toEqual(['The broker is away', 'The broker is back'])
    expect(mails[0]?.text.trim()).toBe('The broker has been unavailable for 30 seconds.')
  })

  it('tell of receipts that are missing', async () => {
    const rig = await started([{ topics: ['receipts/#'], when: { type: 'missed' }, to: [ops] }])
    const missed = { id: 'mi95vp7k1q3x8za-13', topic: 'printer/7/jobs', deadline: '2026-11-21T14:01:00.000Z' }
    await rig.publish('receipts/printer/7/jobs', { type: 'receipt', ...missed, device: 'printer-7' })
    await rig.publish('receipts/printer/7/jobs', { type: 'missed', ...missed, devices: ['printer-7', 'printer-8'] })
    await rig.pass(10_000)
    const [mail] = await rig.sent(1)
    expect(mail?.headers.get('subject')).toBe('2 receipts are missing for printer/7/jobs')
    expect(mail?.text).toContain('came by 2026-11-21 14:01:00 UTC from:\n\n  printer-7\n  printer-8')
  })

  it.each([
    ['a line break', 'cat\r\nBcc: evil@example.org\r\n\r\nbody'],
    ['other ends of lines', 'cat\u2028Bcc: evil@example.org\u0085x\u000b'],
    ['a name in many scripts', '😀 кот 猫 "quoted" \\ </script>'],
    ['a name without an end', 'x'.repeat(100_000)],
  ])('have one subject and no other headers, also with %s in it', async (_, name) => {
    const rig = await started([{ topics: exits, to: [ops] }])
    await rig.publish('supervisor/a/a/EXITED', {
      ...{ processname: name, groupname: name, state: 'EXITED', expected: false, eventname: 'PROCESS_STATE_EXITED' },
    })
    await rig.pass(10_000)
    const [mail] = await rig.sent(1)
    expect([...(mail?.headers.keys() ?? [])].sort()).toEqual(
      [
        'auto-submitted',
        'content-transfer-encoding',
        'content-type',
        'date',
        'from',
        'message-id',
        'mime-version',
        'subject',
        'to',
      ].sort(),
    )
    expect(mail?.args).toBe('-i -f mqway@example.org -- ops@example.org')
    expect(mail?.headers.get('subject')?.length).toBeLessThanOrEqual(200)
  })

  it.each([
    ['quotes and line breaks', Buffer.from('"a" \\ b\nc </script> 😀'), '"a" \\ b\nc </script> 😀'],
    ['bytes that are no text', Buffer.from([0, 255, 254, 1]), '(4 bytes that are no text)'],
    ['a megabyte', Buffer.alloc(1024 ** 2, 'ü'), `${'ü'.repeat(8192)}… (1048576 bytes)`],
    ['characters that no text has', Buffer.from('a\u0000b\u001b[31m'), '(8 bytes that are no text)'],
    ['a dot alone on a line', Buffer.from('a\n.\nb'), 'a\n.\nb'],
  ])('show a payload of %s', async (_, payload, shown) => {
    const rig = await started([{ topics: ['#'], to: [ops] }])
    await rig.publish('t', payload)
    await rig.pass(10_000)
    const [mail] = await rig.sent(1)
    expect(mail?.text.trimEnd()).toBe(shown)
  })
})
