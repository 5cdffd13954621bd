import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import type { IConnectPacket } from 'mqtt-packet'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { TokenBucket } from '../../../src/access/rate-limits.js'
import { GatewayError } from '../../../src/base/errors.js'
import { anonymous, identityOf } from '../../../src/base/identity.js'
import { internalPeer, type Peer } from '../../../src/broker/broker.js'
import { probeBroker } from '../../../src/broker/probe.js'
import { type AccessInput, Credentials, enter, type GuardedOptions, type Guest, startGuarded } from './access-rig.js'
import { somePeer } from './mqtt-session.js'

const credentials = new Credentials()
afterAll(() => credentials.remove())

const closers: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

async function start(rules?: AccessInput['rules'], more: Omit<GuardedOptions, 'access'> = {}) {
  const broker = await startGuarded({ access: { ...credentials.access, ...(rules && { rules }) }, ...more })
  closers.push(() => broker.close())
  return broker
}

/** Anonymous reads news, whoever is known writes to their own topics, alice reads `$SYS`. */
const someRules: AccessInput['rules'] = [
  { to: 'anonymous', subscribe: ['news/#'] },
  { to: 'authenticated', publish: ['chat/%u/#', 'news/%c'], subscribe: ['chat/#'] },
  { to: { role: 'editor' }, publish: ['news/#'] },
  { to: { user: 'alice' }, subscribe: ['$SYS/#'] },
]

const peerWith = (identity: Peer['identity']): Peer => ({ ...somePeer, ...(identity && { identity }) })

/** Publishes, and waits for the acknowledgement where there is one. */
async function publish(guest: Guest, topic: string, options: { qos?: 0 | 1 | 2; retain?: boolean } = {}) {
  const { qos = 1, retain = false } = options
  guest.send({ cmd: 'publish', topic, payload: topic, qos, retain, dup: false, ...(qos > 0 && { messageId: 7 }) })
  if (qos === 0) return undefined
  const answer = await guest.next()
  if (qos === 1) return answer?.cmd
  guest.send({ cmd: 'pubrel', messageId: 7 })
  return [answer?.cmd, (await guest.next())?.cmd].join(' ')
}

/** The topics of the next messages, so many, and of all more that come before PINGRESP. */
async function topics(guest: Guest, atLeast = 0): Promise<string[]> {
  const got: string[] = []
  if (atLeast === 0) guest.send({ cmd: 'pingreq' })
  for (;;) {
    const packet = await guest.next()
    if (packet?.cmd === 'pingresp') return got
    if (packet?.cmd === 'puback') continue
    if (packet?.cmd !== 'publish') throw new Error(`there came ${packet?.cmd}`)
    if (packet.qos === 1) guest.send({ cmd: 'puback', messageId: packet.messageId ?? 0 })
    if (got.push(packet.topic) === atLeast) guest.send({ cmd: 'pingreq' })
  }
}

async function ended(guest: Guest): Promise<GatewayError | undefined> {
  while (await guest.next());
  return guest.stream.closeReason
}

describe('CONNECT', () => {
  const cases: [
    string,
    Partial<IConnectPacket> | (() => Promise<Partial<IConnectPacket>>),
    number | undefined,
    string?,
  ][] = [
    ['the right password', { username: 'alice', password: Buffer.from('right') }, 0],
    ['a wrong password', { username: 'alice', password: Buffer.from('wrong') }, 4, 'identity-refused'],
    ['no password', { username: 'alice' }, 4, 'identity-refused'],
    ['a user who is not there', { username: 'mallory', password: Buffer.from('right') }, 4, 'identity-refused'],
    [
      'a user name with a line end',
      { username: 'a\nb', password: Buffer.from('right') },
      undefined,
      'malformed-packet',
    ],
    ['nothing', {}, 5, 'identity-required'],
    ['a token', async () => ({ username: 'x', password: Buffer.from(await credentials.token('dave')) }), 0],
    [
      'a token that has expired',
      async () => ({ username: 'x', password: Buffer.from(await credentials.token('dave', {}, Date.now() - 1000)) }),
      4,
      'identity-refused',
    ],
    [
      'a will that may be published',
      {
        username: 'alice',
        password: Buffer.from('right'),
        will: { topic: 'status', payload: Buffer.from('x'), qos: 0, retain: false },
      },
      0,
    ],
    [
      'a will that may not be published',
      {
        username: 'alice',
        password: Buffer.from('right'),
        will: { topic: '$x/y', payload: Buffer.from('x'), qos: 0, retain: true },
      },
      5,
      'will-refused',
    ],
  ]
  it.each(cases)('with %s', async (_, connect, returnCode, reason) => {
    const broker = await start()
    const guest = await enter(broker, undefined, typeof connect === 'function' ? await connect() : connect)
    expect(guest.returnCode).toBe(returnCode)
    if (reason === undefined) expect((await guest.subscribe(['a']))?.[0]).toBe(1)
    else expect((await ended(guest))?.reason).toBe(reason)
  })

  it('without credentials counts as whoever made the upgrade', async () => {
    const broker = await start(someRules)
    const guest = await enter(broker, undefined, {}, peerWith(identityOf('bob', 'token')))
    expect(guest.returnCode).toBe(0)
    expect(await guest.subscribe(['chat/x', '$SYS/x'])).toEqual([1, 128])
  })

  it('with credentials counts as who they are of, whoever made the upgrade', async () => {
    const broker = await start(someRules)
    const guest = await enter(broker, 'alice', {}, peerWith(identityOf('bob', 'token')))
    expect(await guest.subscribe(['$SYS/x'])).toEqual([1])
    const refused = await enter(
      broker,
      'alice',
      { password: Buffer.from('wrong') },
      peerWith(identityOf('bob', 'token')),
    )
    expect(refused.returnCode).toBe(4)
  })

  it('is too late when the identity of the upgrade has expired', async () => {
    const broker = await start()
    const late = peerWith(identityOf('bob', 'token', { expires: Date.now() - 1 }))
    const guest = await enter(broker, undefined, {}, late)
    expect([guest.returnCode, (await ended(guest))?.reason]).toEqual([5, 'identity-expired'])
  })

  it('without credentials is enough where a webhook has let in somebody without a name at the upgrade', async () => {
    const broker = await start()
    const guest = await enter(broker, undefined, {}, peerWith({ ...anonymous, source: 'webhook' }))
    expect(guest.returnCode).toBe(0)
    expect((await enter(broker, undefined, {}, peerWith(anonymous))).returnCode).toBe(5)
  })

  it('is answered with 3 while the address has had too many wrong passwords, and others get in', async () => {
    const broker = await start()
    const codes: (number | undefined)[] = []
    for (let count = 0; count < 12; count++) {
      codes.push((await enter(broker, 'alice', { password: Buffer.from(`wrong ${count}`) })).returnCode)
    }
    expect(codes).toEqual([...Array(10).fill(4), 3, 3])
    expect((await enter(broker, 'alice', {}, { ...somePeer, address: '192.0.2.8' })).returnCode).toBe(0)
  })

  it('is answered with 3 beyond connectionsPerUser, until one of them is gone', async () => {
    const broker = await start(undefined, { connectionsPerUser: 2 })
    const [first] = [await enter(broker, 'alice'), await enter(broker, 'alice')]
    const third = await enter(broker, 'alice')
    expect([third.returnCode, (await ended(third))?.reason]).toEqual([3, 'too-many-from-user'])
    expect((await enter(broker, 'bob')).returnCode).toBe(0)
    await first?.end()
    expect((await enter(broker, 'alice')).returnCode).toBe(0)
  })

  it('counts a refused client id and a refused will to nobody', async () => {
    const broker = await start(undefined, { connectionsPerUser: 1 })
    await enter(broker, 'bob', { clientId: 'x' })
    expect((await enter(broker, 'alice', { clientId: 'x' })).returnCode).toBe(2)
    const will = { topic: '$x', payload: Buffer.from(''), qos: 0, retain: false } as const
    expect((await enter(broker, 'alice', { will })).returnCode).toBe(5)
    expect((await enter(broker, 'alice')).returnCode).toBe(0)
  })

  it('of the program itself needs nothing; somebody who looks the same does', async () => {
    const broker = await start(someRules)
    expect(await probeBroker(broker)).toBeGreaterThan(0)
    const own = await enter(broker, undefined, {}, internalPeer)
    expect(own.returnCode).toBe(0)
    expect(await own.subscribe(['#', '$SYS/#'])).toEqual([1, 1])
    const strict = await start()
    expect((await enter(strict, undefined, {}, { ...internalPeer })).returnCode).toBe(5)
  })
})

describe('rules', () => {
  it('give each filter of a SUBSCRIBE its own answer, and the connection stays', async () => {
    const broker = await start(someRules)
    const guest = await enter(broker, 'bob')
    const filters = ['#', 'news/#', '+/sport', 'chat/+/x', '$SYS/#', '$share/g/news/a', '$share/g/#', 'chat']
    expect(await guest.subscribe(filters)).toEqual([128, 1, 128, 1, 128, 1, 128, 1])
    expect(await topics(guest)).toEqual([])
    expect(broker.denied.subscribe).toBe(4)
    expect(await (await enter(broker, 'alice')).subscribe(['$SYS/broker/uptime'])).toEqual([1])
  })

  it('hold for a session too: what was refused beside something granted is not stored', async () => {
    const broker = await start(someRules)
    const guest = await enter(broker, 'bob', { clientId: 's', clean: false })
    expect(await guest.subscribe(['news/a', '#'])).toEqual([1, 128])
    await guest.end()
    const editor = await enter(broker, undefined, {}, peerWith(identityOf('ed', 'token', { roles: ['editor'] })))
    await publish(await enter(broker, 'alice'), 'chat/alice/1')
    await publish(editor, 'news/a')
    const again = await enter(broker, 'bob', { clientId: 's', clean: false })
    expect(await topics(again, 1)).toEqual(['news/a'])
  })

  it.each([0, 1, 2] as const)('drop a message of QoS %s that may not be published, and acknowledge it', async qos => {
    const broker = await start(someRules)
    const reader = await enter(broker, 'alice')
    await reader.subscribe(['news/#', 'chat/#'], 0)
    const writer = await enter(broker, 'bob')
    const answers = [undefined, 'puback', 'pubrec pubcomp']
    for (const topic of ['news/a', 'chat/alice/x', '$x', 'chat', '$SYS/broker/version']) {
      expect(await publish(writer, topic, { qos, retain: true })).toBe(answers[qos])
    }
    expect(await publish(writer, 'chat/bob/x', { qos })).toBe(answers[qos])
    await topics(writer)
    expect(await topics(reader, 1)).toEqual(['chat/bob/x'])
    expect(broker.denied.publish).toBe(5)
    const late = await enter(broker, 'alice')
    await late.subscribe(['news/#', 'chat/#'], 0)
    expect(await topics(late)).toEqual([])
  })

  it('take a burst of messages that are dropped, in one go', async () => {
    const broker = await start(someRules)
    const writer = await enter(broker, 'bob')
    for (let count = 0; count < 5000; count++) {
      writer.send({ cmd: 'publish', topic: 'news/a', payload: 'x', qos: 0, retain: false, dup: false })
    }
    expect(await topics(writer)).toEqual([])
    expect(broker.denied.publish).toBe(5000)
  })

  it('keep retained messages from those who may not read them', async () => {
    const broker = await start(someRules)
    const editor = await enter(broker, undefined, {}, peerWith(identityOf('ed', 'token', { roles: ['editor'] })))
    await publish(editor, 'news/a', { retain: true })
    await publish(await enter(broker, 'bob'), 'chat/bob/1', { retain: true })
    const reader = await enter(broker, undefined)
    expect(await reader.subscribe(['#', 'news/#', 'chat/bob/1'])).toEqual([128, 1, 128])
    expect(await topics(reader, 1)).toEqual(['news/a'])
  })

  it.each([
    ['+', 'dev/+/x'],
    ['#', 'dev/#'],
    ['a/b', 'dev/a/b/x'],
    ['$SYS', '$SYS/x'],
  ])('are not widened by a user or a client called %s', async (name, wanted) => {
    const rules = [
      {
        to: 'authenticated' as const,
        publish: ['dev/%u/x', '%u/x'],
        subscribe: ['dev/%u/x', 'dev/%c/x', '%u/x', '%c/x'],
      },
    ]
    const broker = await start(rules)
    const guest = await enter(broker, undefined, { clientId: name }, peerWith(identityOf(name, 'token')))
    expect(guest.returnCode).toBe(0)
    for (const filter of [wanted, '+/x', '$SYS/x', 'a/b/x']) expect(await guest.subscribe([filter])).toEqual([128])
    const other = await enter(broker, undefined, { clientId: 'c' }, peerWith(identityOf('u', 'token')))
    expect(await other.subscribe(['dev/u/x', 'dev/c/x', 'u/x', 'c/x'])).toEqual([1, 1, 1, 1])
  })

  it('of a token are added to the others', async () => {
    const broker = await start(someRules)
    const token = await credentials.token('dave', { mqtt: { publish: ['only/%u'], subscribe: ['only/#'] } })
    const guest = await enter(broker, undefined, { username: 'x', password: Buffer.from(token) })
    expect(await guest.subscribe(['only/+', 'chat/+', 'x'])).toEqual([1, 1, 128])
    const writer = await enter(broker, undefined, { username: 'x', password: Buffer.from(token) })
    await publish(writer, 'only/erin')
    await publish(writer, 'only/dave')
    expect(await topics(guest, 1)).toEqual(['only/dave'])
  })
})

describe('a client id', () => {
  it('that a user is connected with is not for another user, and the connection stays', async () => {
    const broker = await start([...someRules, { to: 'authenticated', subscribe: ['x'] }])
    const first = await enter(broker, 'alice', { clientId: 'phone' })
    for (const user of ['bob', undefined]) {
      const second = await enter(broker, user, { clientId: 'phone' })
      expect([second.returnCode, (await ended(second))?.reason]).toEqual([2, 'client-id-taken'])
    }
    expect(await topics(first)).toEqual([])
    const third = await enter(broker, 'alice', { clientId: 'phone' })
    expect(third.returnCode).toBe(0)
    expect((await ended(first))?.reason).toBe('session-taken-over')
    await third.end()
    expect((await enter(broker, 'bob', { clientId: 'phone' })).returnCode).toBe(0)
  })

  it('that a session is kept under is only for whose it is, until they end it', async () => {
    const broker = await start(someRules)
    await (await enter(broker, 'alice', { clientId: 'phone', clean: false })).end()
    for (const clean of [true, false]) {
      expect((await enter(broker, 'bob', { clientId: 'phone', clean })).returnCode).toBe(2)
    }
    const back = await enter(broker, 'alice', { clientId: 'phone', clean: false })
    expect([back.returnCode, back.sessionPresent]).toEqual([0, true])
    await back.end()
    await (await enter(broker, 'alice', { clientId: 'phone', clean: true })).end()
    expect((await enter(broker, 'bob', { clientId: 'phone', clean: false })).returnCode).toBe(0)
  })

  it('of two who come at once is for one of them', async () => {
    const broker = await start(someRules)
    const codes = await Promise.all(
      ['alice', 'bob', 'carol'].map(async user => (await enter(broker, user, { clientId: 'x' })).returnCode),
    )
    expect(codes.toSorted()).toEqual([0, 2, 2])
  })

  it.each([
    ['connected, without a session', { clean: true }, true],
    ['connected, with a session', { clean: false }, true],
    ['kept by a session', { clean: false }, false],
  ])('of somebody without a name is for a user, and nothing comes with it: %s', async (_how, how, stays) => {
    const broker = await start([...someRules, { to: 'anonymous', publish: ['news/#'] }])
    const squatter = await enter(broker, undefined, {
      clientId: 'phone',
      will: { topic: 'news/gone', payload: Buffer.from('gone'), qos: 1, retain: false },
      ...how,
    })
    const reader = await enter(broker, undefined)
    expect([await squatter.subscribe(['news/#']), await reader.subscribe(['news/#'])]).toEqual([[1], [1]])
    if (!stays) {
      await squatter.end()
      await publish(await enter(broker, undefined), 'news/waiting')
      expect(await topics(reader, 1)).toEqual(['news/waiting'])
    }
    const user = await enter(broker, 'alice', { clientId: 'phone', clean: false })
    expect([user.returnCode, user.sessionPresent]).toEqual([0, false])
    if (stays) {
      expect((await ended(squatter))?.reason).toBe('client-id-taken')
      expect(await topics(reader, 1)).toEqual(['news/gone'])
    }
    for (const clean of [true, false]) {
      expect((await enter(broker, undefined, { clientId: 'phone', clean })).returnCode).toBe(2)
    }
    // What the other one was subscribed to is not what the user is.
    await publish(await enter(broker, undefined), 'news/1')
    expect(await topics(user)).toEqual([])
    await user.end()
    expect((await enter(broker, undefined, { clientId: 'phone' })).returnCode).toBe(2)
    const back = await enter(broker, 'alice', { clientId: 'phone', clean: false })
    expect([back.returnCode, back.sessionPresent]).toEqual([0, true])
  })

  it('that all want at once is for a user, whoever comes first', async () => {
    const broker = await start(someRules)
    for (let round = 0; round < 20; round++) {
      const clientId = `x${round}`
      const users = [undefined, 'alice', undefined, 'alice', undefined]
      const guests = await Promise.all(users.map(user => enter(broker, user, { clientId, clean: round % 2 === 0 })))
      expect(guests.filter((_guest, index) => users[index] === 'alice').map(guest => guest.returnCode)).toEqual([0, 0])
      const last = await enter(broker, 'alice', { clientId })
      expect(await topics(last)).toEqual([])
      for (const guest of guests) await ended(guest)
      await last.end()
    }
  })

  it('may be any text, also the names that objects have', async () => {
    const broker = await start(someRules)
    for (const clientId of ['__proto__', 'constructor', 'user:bob', 'anonymous', 'a:b c']) {
      const guest = await enter(broker, 'alice', { clientId, clean: false })
      expect(guest.returnCode).toBe(0)
      expect((await enter(broker, 'bob', { clientId })).returnCode).toBe(2)
    }
  })
})

describe('a session on disk', () => {
  it('is still its user’s after a restart, loses what the rules no longer give, and does not get what waited for that', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-access-'))
    closers.push(() => rm(data, { recursive: true }))
    const open = { to: 'authenticated' as const, publish: ['#'], subscribe: ['#'] }
    const before = await startGuarded({ access: { ...credentials.access, rules: [open] }, limits: { data } })
    const first = await enter(before, 'alice', { clientId: 'phone: 1', clean: false })
    expect(await first.subscribe(['news/#', 'secret/#'])).toEqual([1, 1])
    await first.end()
    const writer = await enter(before, 'bob')
    for (const topic of ['secret/1', 'news/1', 'secret/2', 'news/2']) await publish(writer, topic)
    await before.close()

    const rules = [{ to: 'authenticated' as const, publish: ['#'], subscribe: ['news/#'] }]
    const after = await start(rules, { limits: { data } })
    expect((await enter(after, 'bob', { clientId: 'phone: 1', clean: false })).returnCode).toBe(2)
    const again = await enter(after, 'alice', { clientId: 'phone: 1', clean: false })
    expect([again.returnCode, again.sessionPresent]).toEqual([0, true])
    expect(await topics(again, 2)).toEqual(['news/1', 'news/2'])
    expect(after.denied).toEqual({ publish: 0, subscribe: 1, receive: 2 })
    const other = await enter(after, 'bob')
    await publish(other, 'secret/3')
    await publish(other, 'news/3')
    expect(await topics(again, 1)).toEqual(['news/3'])
    await again.end()
    await publish(other, 'secret/4')
    await publish(other, 'news/4')
    const last = await enter(after, 'alice', { clientId: 'phone: 1', clean: false })
    expect(await topics(last, 1)).toEqual(['news/4'])
    // Gone for good: the subscription is not in the session any more, so nothing was queued for it.
    expect(after.denied.receive).toBe(2)
  })

  it('of somebody without a name gives way to a user, also after a restart', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-access-'))
    closers.push(() => rm(data, { recursive: true }))
    const rules = [{ to: 'anonymous' as const, publish: ['#'], subscribe: ['#'] }]
    const before = await startGuarded({ access: { ...credentials.access, rules }, limits: { data } })
    const first = await enter(before, undefined, { clientId: 'phone', clean: false })
    await first.subscribe(['news/#'])
    await first.end()
    await publish(await enter(before, undefined), 'news/1')
    await before.close()
    const between = await startGuarded({ access: { ...credentials.access, rules }, limits: { data } })
    const user = await enter(between, 'alice', { clientId: 'phone', clean: false })
    expect([user.returnCode, user.sessionPresent, await topics(user)]).toEqual([0, false, []])
    await user.subscribe(['own'])
    await between.close()
    const after = await start(rules, { limits: { data } })
    expect((await enter(after, undefined, { clientId: 'phone', clean: false })).returnCode).toBe(2)
    const again = await enter(after, 'alice', { clientId: 'phone', clean: false })
    await publish(await enter(after, undefined), 'news/2')
    await publish(await enter(after, undefined), 'own')
    expect([again.sessionPresent, await topics(again, 1)]).toEqual([true, ['own']])
  })

  it('from before there was access is for whoever comes first', async () => {
    const data = await mkdtemp(join(tmpdir(), 'mqway-access-'))
    closers.push(() => rm(data, { recursive: true }))
    const before = await startGuarded({ limits: { data } })
    const first = await enter(before, undefined, { clientId: 'phone', clean: false })
    await first.subscribe(['news/#', 'secret/#'])
    await first.end()
    for (const topic of ['secret/1', 'news/1']) await publish(await enter(before, undefined), topic)
    await before.close()
    const after = await start(someRules, { limits: { data } })
    const again = await enter(after, 'alice', { clientId: 'phone', clean: false })
    expect([again.sessionPresent, await topics(again, 1)]).toEqual([true, ['news/1']])
    await again.end()
    expect((await enter(after, 'bob', { clientId: 'phone', clean: false })).returnCode).toBe(2)
  })
})

describe('wills', () => {
  it('that were allowed are published, and refused ones are not', async () => {
    const broker = await start(someRules)
    const reader = await enter(broker, 'alice')
    await reader.subscribe(['chat/#', 'news/#'])
    const will = (topic: string) => ({ will: { topic, payload: Buffer.from('gone'), qos: 1 as const, retain: false } })
    const good = await enter(broker, 'bob', will('chat/bob/gone'))
    const bad = await enter(broker, 'bob', will('chat/alice/gone'))
    expect([good.returnCode, bad.returnCode]).toEqual([0, 5])
    good.stream.destroy()
    expect(await reader.next()).toMatchObject({ cmd: 'publish', topic: 'chat/bob/gone' })
    expect(await topics(reader)).toEqual([])
  })
})

describe('an identity that expires', () => {
  it('ends its connection, and says why', async () => {
    const broker = await start()
    const token = await credentials.token('dave', {}, Date.now() + 1000)
    const guest = await enter(broker, undefined, { username: '', password: Buffer.from(token) })
    expect(guest.returnCode).toBe(4)
    const named = await enter(broker, undefined, { username: 'dave', password: Buffer.from(token) })
    expect(named.returnCode).toBe(0)
    const [error] = await once(named.stream, 'error')
    expect(error).toBeInstanceOf(GatewayError)
    expect(error).toMatchObject({ reason: 'identity-expired', closeCode: 1008 })
  })
})

describe('topics that are too large', () => {
  const narrow = { limits: { topicLevels: 4, topicLength: 20 } }

  it.each(['a/b/c/d/e', 'x'.repeat(21)])(
    'end the connection of who publishes to %s, also without rules',
    async topic => {
      const broker = await startGuarded(narrow)
      closers.push(() => broker.close())
      const guest = await enter(broker, undefined)
      await publish(guest, 'a/b/c/d')
      expect(await publish(guest, topic)).toBe(undefined)
      expect((await ended(guest))?.reason).toBe('topic-too-large')
    },
  )

  it('are no filters to subscribe to', async () => {
    const broker = await start(undefined, narrow)
    const guest = await enter(broker, 'alice')
    expect(await guest.subscribe(['a/b/c/#', 'a/b/c/d/#', 'x'.repeat(20), 'x'.repeat(21)])).toEqual([1, 128, 1, 128])
  })

  it('are no topics of a will', async () => {
    const broker = await start(undefined, narrow)
    const will = { topic: 'a/b/c/d/e', payload: Buffer.from(''), qos: 0, retain: false } as const
    const guest = await enter(broker, 'alice', { will })
    expect([guest.returnCode, (await ended(guest))?.reason]).toEqual([3, 'topic-too-large'])
  })

  it.each([64, 101, 5000])('of %s levels do no harm to others', async levels => {
    const broker = await start(undefined, { limits: { topicLevels: 32, topicLength: 65_535 } })
    const other = await enter(broker, 'bob')
    await other.subscribe(['a/#'])
    const guest = await enter(broker, 'alice')
    await publish(guest, Array(levels).fill('a').join('/'))
    expect((await ended(guest))?.reason).toBe('topic-too-large')
    await publish(await enter(broker, 'bob'), 'a/b')
    expect(await topics(other, 1)).toEqual(['a/b'])
  })
})

describe('publishing too fast', () => {
  const slow = { burst: 5, perSecond: 100 }

  it('is slowed down: nothing is lost, not even of who is gone, and others are not', async () => {
    let delays = 0
    const createRateLimit = () => {
      const bucket = new TokenBucket(slow)
      return { batchSize: 10, spend: (messages: number) => bucket.spend(messages) }
    }
    const onThrottled = () => {
      delays++
    }
    const broker = await start(undefined, { hooks: { createRateLimit, onThrottled } })
    const reader = await enter(broker, 'alice')
    await reader.subscribe(['a'])
    const [writer, other] = [await enter(broker, 'bob'), await enter(broker, 'carol')]
    const begin = performance.now()
    for (let count = 0; count < 50; count++) {
      writer.send({ cmd: 'publish', topic: 'a', payload: 'x', qos: 0, retain: false, dup: false })
    }
    writer.stream.destroy()
    expect(await publish(other, 'b')).toBe('puback')
    const soon = await topics(reader)
    expect(soon.length).toBeLessThan(50)
    expect(await topics(reader, 50 - soon.length)).toHaveLength(50 - soon.length)
    // 45 beyond the burst at 100 per second, but for the last batchSize, which is not waited for.
    expect(performance.now() - begin).toBeGreaterThan(300)
    expect(delays).toBeGreaterThan(3)
  })
})

describe('whatever the rules', () => {
  const level = fc.constantFrom('a', 'b', '', '$x')
  const word = fc.oneof({ weight: 2, arbitrary: level }, { weight: 1, arbitrary: fc.constant('+') })
  const topic = fc.array(level, { minLength: 1, maxLength: 3 }).map(levels => levels.join('/'))
  const filter = fc
    .tuple(fc.array(word, { minLength: 1, maxLength: 3 }), fc.boolean())
    .map(([levels, rest]) => [...levels, ...(rest ? ['#'] : [])].join('/'))
    .filter(text => text !== '')
  const filters = fc.array(filter, { minLength: 1, maxLength: 3 })

  /** MQTT 3.1.1 §4.7, level by level. */
  const matches = ([first, ...rest]: string[], levels: string[], top = true): boolean => {
    const [level, ...deeper] = levels
    const hidden = top && level?.startsWith('$') === true
    if (first === '#') return !hidden
    if (first === undefined || level === undefined) return first === level
    return (first === '+' ? !hidden : first === level) && matches(rest, deeper, false)
  }
  const anyMatches = (some: readonly string[], name: string): boolean =>
    some.some(one => matches(one.split('/'), name.split('/')))

  it('a subscriber gets what they cover and it asked for, and nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(
        filters,
        filters,
        filters,
        fc.array(
          topic.filter(name => name !== ''),
          { minLength: 1, maxLength: 8 },
        ),
        fc.boolean(),
        async (publishable, readable, wanted, names, retain) => {
          const rules: AccessInput['rules'] = [
            { to: { user: 'alice' }, subscribe: [...readable, 'end'] },
            { to: { user: 'bob' }, publish: [...publishable, 'end'] },
          ]
          const broker = await startGuarded({ access: { ...credentials.access, rules } })
          try {
            const [reader, writer] = [await enter(broker, 'alice'), await enter(broker, 'bob')]
            const asked = [...new Set([...wanted, ...readable])]
            if (retain) for (const name of names) await publish(writer, name, { retain })
            const granted = (await reader.subscribe([...asked, 'end'])) ?? []
            // Filters of the rules themselves are always covered.
            for (const one of readable) expect(granted[asked.indexOf(one)]).toBe(1)
            if (!retain) for (const name of names) await publish(writer, name)
            const live = asked.filter((_, index) => granted[index] === 1)
            const delivered = names.filter(name => anyMatches(publishable, name) && anyMatches(live, name))
            const expected = retain ? [...new Set(delivered)] : delivered
            const got = await topics(reader, expected.length)
            await publish(writer, 'end')
            got.push(...(await topics(reader, 1)))
            expect(got.pop()).toBe('end')
            expect(got.toSorted()).toEqual(expected.toSorted())
            for (const name of got) expect(anyMatches(readable, name)).toBe(true)
          } finally {
            await broker.close()
          }
        },
      ),
      { numRuns: 60 },
    )
  })
})
