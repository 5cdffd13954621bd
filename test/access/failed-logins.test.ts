import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import bcrypt from 'bcrypt'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Authenticator, type AuthenticatorOptions } from '../../src/access/authenticator.js'
import { FailedLoginLimiter } from '../../src/access/failed-logins.js'
import { Passwords } from '../../src/access/passwords.js'
import { Tickets } from '../../src/access/tickets.js'
import { Webhook } from '../../src/access/webhook.js'
import { GatewayError } from '../../src/base/errors.js'
import { access } from '../../src/config/access.js'
import { MemoryState } from '../../src/storage/memory-state.js'
import type { SharedState } from '../../src/storage/shared-state.js'
import { eventually } from '../helpers/wait.js'

const refused = async (): Promise<never> => {
  throw new GatewayError('identity-refused')
}

/** Who knows alice with the password `right`, and says so only when told to. */
async function slowWebhook() {
  const waiting: { readonly password: string; answer(): void }[] = []
  const server = http.createServer(async (request, response) => {
    let text = ''
    for await (const chunk of request) text += chunk
    const { password } = JSON.parse(text)
    const body = password === 'right' ? { allow: true, user: 'alice' } : { allow: false }
    waiting.push({ password, answer: () => response.end(JSON.stringify(body)) })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const { webhook: config } = access.parse({ webhook: { url: `http://127.0.0.1:${port}/` } })
  if (config === undefined) throw new Error('there is no webhook')
  const webhook = new Webhook({ config })
  onTestFinished(() => {
    webhook.close()
    server.closeAllConnections()
    server.close()
  })
  return { webhook, waiting }
}

function judges(options: Partial<AuthenticatorOptions>) {
  const tickets = new Tickets({ expires: 1000, max: 1, state: new MemoryState() })
  const all = { tickets, acceptsCertificates: false, allowsAnonymous: false, ...options }
  const authenticator = new Authenticator(all)
  return (password: string, address = '192.0.2.1', user = 'alice') =>
    authenticator
      .identify({ transport: 'http', address, credential: { kind: 'password', user, password } })
      .then(identity => identity.user)
}

const reasonOf = (result: PromiseSettledResult<unknown>): unknown =>
  result.status === 'rejected' ? result.reason.reason : result.value

const passwordsOf = (users: Record<string, string>, concurrent = 1): Passwords => {
  const map = new Map(Object.entries(users).map(([user, password]) => [user, bcrypt.hashSync(password, 4)]))
  return new Passwords({ users: () => map, concurrent })
}

describe('those who wait', () => {
  it('are judged while they are there, the newest first', async () => {
    const wrong = new FailedLoginLimiter()
    const ends: (() => void)[] = []
    const judged: number[] = []
    const gone = new Set<number>()
    const all = Array.from({ length: 30 }, (_, index) =>
      wrong.run(
        '192.0.2.1',
        () => {
          judged.push(index)
          return new Promise<void>(resolve => ends.push(resolve))
        },
        () => gone.has(index),
      ),
    )
    const results = Promise.allSettled(all)
    await eventually(() => judged.length === 10)
    for (let index = 10; index < 28; index += 2) gone.add(index)
    for (let end = ends.shift(); end; end = ends.shift()) {
      end()
      await new Promise(setImmediate)
    }
    expect(judged.slice(10)).toEqual([29, 28, 27, 25, 23, 21, 19, 17, 15, 13, 11])
    expect((await results).filter(({ status }) => status === 'rejected').map(reasonOf)).toEqual(
      Array.from({ length: 9 }, () => 'client-gone'),
    )
  })

  it('leave room for others when they are gone', async () => {
    const wrong = new FailedLoginLimiter()
    let isGone = false
    const first = Array.from({ length: 10 }, () => wrong.run('192.0.2.1', () => new Promise(() => {})))
    const others = Array.from({ length: 100 }, () => wrong.run('192.0.2.1', refused, () => isGone))
    const results = Promise.allSettled(others)
    isGone = true
    void wrong.run('192.0.2.1', async () => 'right').catch(() => {})
    expect((await results).map(reasonOf)).toEqual(others.map(() => 'client-gone'))
    expect(first).toHaveLength(10)
  })
})

describe('an address', () => {
  it('has ten wrong passwords, and one more every ten seconds; another one has its own', async () => {
    let now = 0
    const guess = judges({ passwords: passwordsOf({ alice: 'right' }), clock: () => now })
    for (let attempt = 0; attempt < 10; attempt++) {
      await expect(guess('guess', '2001:db8:0:1::7')).rejects.toMatchObject({ reason: 'identity-refused' })
    }
    const flood = { reason: 'too-many-attempts', httpStatus: 429, retryAfter: 10 }
    await expect(guess('guess', '2001:db8:0:1::8')).rejects.toMatchObject(flood)
    // The right one is among those that an attacker tries.
    await expect(guess('right', '2001:db8:0:1::7')).rejects.toMatchObject(flood)
    expect(await guess('right', '2001:db8:0:2::7')).toBe('alice')
    now += 10_000
    await expect(guess('guess', '2001:db8:0:1::7')).rejects.toMatchObject({ reason: 'identity-refused' })
    await expect(guess('guess', '2001:db8:0:1::7')).rejects.toMatchObject(flood)
  })

  it('that has sent a right one goes on with it, whatever else it sends', async () => {
    const guess = judges({ passwords: passwordsOf({ alice: 'right' }) })
    expect(await guess('right')).toBe('alice')
    await Promise.allSettled(Array.from({ length: 20 }, (_, index) => guess(String(index))))
    expect(await guess('right')).toBe('alice')
  })

  it.each(['alice', 'nobody'])('has no more by sending all at once, for %s', async user => {
    const guess = judges({ passwords: passwordsOf({ alice: 'right' }, 3) })
    const all = await Promise.allSettled(Array.from({ length: 90 }, (_, i) => guess(String(i), '192.0.2.1', user)))
    const reasons = all.map(reasonOf)
    expect(reasons.filter(reason => reason === 'identity-refused')).toHaveLength(10)
    expect(reasons.filter(reason => reason === 'too-many-attempts')).toHaveLength(80)
  })

  it('has no more where a webhook takes its time to refuse', async () => {
    const { webhook, waiting } = await slowWebhook()
    const guess = judges({ webhook })
    const all = Promise.allSettled(Array.from({ length: 15 }, (_, index) => guess(String(index))))
    await eventually(() => waiting.length >= 10)
    const other = guess('right', '192.0.2.2')
    await eventually(() => waiting.some(({ password }) => password === 'right'))
    expect(waiting).toHaveLength(11)
    for (const { answer } of waiting) answer()
    expect(await other).toBe('alice')
    const reasons = (await all).map(reasonOf)
    expect(reasons).toEqual([...Array(10).fill('identity-refused'), ...Array(5).fill('too-many-attempts')])
    expect(waiting).toHaveLength(11)
  })
})

describe('passwords of one address', () => {
  it('that are right take no place of wrong ones, and those that wait get in as others leave, the newest first', async () => {
    const wrong = new FailedLoginLimiter()
    let judging = 0
    let most = 0
    const right = (index: number) =>
      wrong.run('192.0.2.1', async () => {
        most = Math.max(most, ++judging)
        await new Promise(resolve => setImmediate(resolve))
        judging--
        return index
      })
    const order: number[] = []
    await Promise.all(Array.from({ length: 100 }, async (_, index) => order.push(await right(index))))
    const indices = Array.from({ length: 100 }, (_, index) => index)
    expect(order).toEqual([...indices.slice(0, 10), ...indices.slice(10).reverse()])
    expect(most).toBe(10)
  })

  it('wait by the hundred, and no longer than ten seconds', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const wrong = new FailedLoginLimiter()
    let finish: () => void = () => {}
    const held = new Promise<void>(resolve => {
      finish = resolve
    })
    const judging = Array.from({ length: 10 }, () => wrong.run('192.0.2.1', () => held))
    const waiting = Promise.allSettled(Array.from({ length: 100 }, () => wrong.run('192.0.2.1', async () => 'right')))
    await expect(wrong.run('192.0.2.1', refused)).rejects.toMatchObject({ reason: 'too-many-attempts' })
    await vi.advanceTimersByTimeAsync(10_000)
    expect((await waiting).map(reasonOf)).toEqual(Array(100).fill('too-many-attempts'))
    finish()
    await Promise.all(judging)
    expect(await wrong.run('192.0.2.1', async () => 'right')).toBe('right')
  })

  it('that could not be judged were not wrong', async () => {
    const wrong = new FailedLoginLimiter()
    const broken = () => wrong.run('192.0.2.1', () => Promise.reject(new GatewayError('identity-unavailable')))
    for (let count = 0; count < 20; count++) await expect(broken()).rejects.toMatchObject({ httpStatus: 503 })
    for (let count = 0; count < 10; count++) await expect(wrong.run('192.0.2.1', refused)).rejects.toBeDefined()
    await expect(broken()).rejects.toMatchObject({ reason: 'too-many-attempts' })
  })
})

describe('an address at several gateways', () => {
  const gateways = (count: number) => {
    let now = 0
    let isAway = false
    const state = new MemoryState(() => now)
    const ask = <T>(answer: () => Promise<T>): Promise<T> => (isAway ? Promise.reject(new Error('away')) : answer())
    const shared: SharedState = {
      exchange: () => state.exchange(),
      collection: (name, bounds) => {
        const collection = state.collection(name, bounds)
        return { get: key => ask(() => collection.get(key)), set: (...args) => ask(() => collection.set(...args)) }
      },
    }
    const limiters = Array.from({ length: count }, () => new FailedLoginLimiter({ state: shared, now: () => now }))
    return {
      limiters,
      run: <T>(index: number, verify: () => Promise<T>) => {
        const limiter = limiters[index % count]
        if (!limiter) throw new RangeError()
        return limiter.run('192.0.2.1', verify)
      },
      pass: (milliseconds: number) => {
        now += milliseconds
      },
      leave: (away: boolean) => {
        isAway = away
      },
    }
  }
  const wrongOnes = (results: readonly PromiseSettledResult<unknown>[]): number =>
    results.map(reasonOf).filter(reason => reason === 'identity-refused').length

  it('has ten wrong passwords at all of them together, one after the other or at once', async () => {
    for (const atOnce of [false, true]) {
      const { run, pass } = gateways(3)
      const attempts = async (count: number) => {
        const results: PromiseSettledResult<unknown>[] = []
        if (atOnce) return Promise.allSettled(Array.from({ length: count }, (_, index) => run(index, refused)))
        for (let index = 0; index < count; index++) results.push(...(await Promise.allSettled([run(index, refused)])))
        return results
      }
      expect(wrongOnes(await attempts(60))).toBe(10)
      pass(10_000)
      expect(wrongOnes(await attempts(30))).toBe(1)
      pass(20_000)
      expect(wrongOnes(await attempts(30))).toBe(2)
    }
  })

  it('has ten logins at once, and further ones when those have ended', async () => {
    const { run } = gateways(2)
    let [running, max] = [0, 0]
    const right = async (): Promise<void> => {
      max = Math.max(max, ++running)
      await new Promise(resolve => setImmediate(resolve))
      running--
    }
    await Promise.all(Array.from({ length: 60 }, (_, index) => run(index, right)))
    expect(max).toBeLessThanOrEqual(10)
    expect(max).toBeGreaterThan(5)
  })

  it('waits for logins at another gateway, which may have ended without a word', async () => {
    const { run, pass } = gateways(2)
    let running = 0
    const hang = () => {
      running++
      return new Promise(() => {})
    }
    for (let index = 0; index < 10; index++) void run(0, hang).catch(() => {})
    await eventually(() => running === 10)
    let isIn = false
    const waiting = run(1, async () => {
      isIn = true
    })
    await new Promise(setImmediate)
    expect(isIn).toBe(false)
    pass(60_000)
    await waiting
  })

  it('has ten at each of them while the state is away, and no more of its own when that is back', async () => {
    const { run, leave } = gateways(2)
    leave(true)
    for (let index = 0; index < 24; index++) await expect(run(index, refused)).rejects.toThrow(GatewayError)
    await expect(run(0, refused)).rejects.toMatchObject({ reason: 'too-many-attempts' })
    leave(false)
    for (const index of [0, 1]) await expect(run(index, refused)).rejects.toMatchObject({ reason: 'too-many-attempts' })
  })

  it('gives back a slot that it gets later than a second', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    onTestFinished(() => void vi.useRealTimers())
    const state = new MemoryState(() => 0)
    let respond = (): void => {}
    const isReady = new Promise<void>(resolve => {
      respond = resolve
    })
    const slow: SharedState = {
      exchange: async () => [],
      collection: (name, bounds) => {
        const collection = state.collection(name, bounds)
        return {
          get: async key => {
            await isReady
            return collection.get(key)
          },
          set: (...change) => collection.set(...change),
        }
      },
    }
    const first = new FailedLoginLimiter({ state: slow }).run('192.0.2.1', async () => 'right')
    await vi.advanceTimersByTimeAsync(1000)
    expect(await first).toBe('right')
    respond()
    await vi.advanceTimersByTimeAsync(0)
    const other = new FailedLoginLimiter({ state })
    let running = 0
    const hang = (): Promise<never> => {
      running++
      return new Promise(() => {})
    }
    for (let index = 0; index < 10; index++) void other.run('192.0.2.1', hang)
    await vi.advanceTimersByTimeAsync(0)
    expect(running).toBe(10)
  })

  it('waits a second for a state that does not answer, and not again soon', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    onTestFinished(() => void vi.useRealTimers())
    let asked = 0
    const silent = {
      get: () => {
        asked++
        return new Promise<never>(() => {})
      },
      set: () => new Promise<never>(() => {}),
    }
    const limiter = new FailedLoginLimiter({ state: { exchange: async () => [], collection: () => silent } })
    const first = limiter.run('192.0.2.1', async () => 'right')
    await vi.advanceTimersByTimeAsync(1000)
    expect(await first).toBe('right')
    expect(await limiter.run('192.0.2.1', async () => 'right')).toBe('right')
    expect(asked).toBe(1)
    await vi.advanceTimersByTimeAsync(3000)
    void limiter.run('192.0.2.1', async () => 'right')
    await vi.advanceTimersByTimeAsync(0)
    expect(asked).toBe(2)
  })
})
