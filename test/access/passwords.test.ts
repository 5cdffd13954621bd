import { monitorEventLoopDelay } from 'node:perf_hooks'
import bcrypt from 'bcrypt'
import { describe, expect, it } from 'vitest'
import { Passwords } from '../../src/access/passwords.js'

const cost = 4
const hashOf = (password: string, rounds = cost): string => bcrypt.hashSync(password, rounds)

function passwordsOf(users: Record<string, string>, options: { concurrent?: number; now?: () => number } = {}) {
  const map = new Map(Object.entries(users))
  return { map, passwords: new Passwords({ users: () => map, ...options }) }
}

describe('passwords', () => {
  it.each(['$2a', '$2b', '$2y'])('of %s hashes are right or wrong', async prefix => {
    const { passwords } = passwordsOf({ alice: hashOf('open sesame').replace(/^\$2b/, prefix) })
    expect(await passwords.verify('alice', 'open sesame', '192.0.2.1')).toBe('right')
    expect(await passwords.verify('alice', 'open sesam', '192.0.2.1')).toBe('wrong')
    expect(await passwords.verify('alice', '', '192.0.2.1')).toBe('wrong')
    expect(await passwords.verify('bob', 'open sesame', '192.0.2.1')).toBe('unknown-user')
  })

  it('that are longer than bcrypt looks at are wrong, also where their beginning is right', async () => {
    const long = 'x'.repeat(72)
    const { passwords } = passwordsOf({ alice: hashOf(long), bob: hashOf('') })
    expect(await passwords.verify('alice', `${long}y`, '192.0.2.1')).toBe('wrong')
    expect(await passwords.verify('alice', 'x\0', '192.0.2.1')).toBe('wrong')
    expect(await passwords.verify('bob', '', '192.0.2.1')).toBe('wrong')
    expect(await passwords.verify('alice', long, '192.0.2.1')).toBe('right')
  })

  it('no password is that of a user whom the file does not have', async () => {
    const { passwords } = passwordsOf({})
    for (const user of ['', 'constructor', '__proto__']) {
      expect(await passwords.verify(user, 'x', '192.0.2.1')).toBe('unknown-user')
    }
  })

  it('are forgotten when the user gets a new one', async () => {
    const { map, passwords } = passwordsOf({ alice: hashOf('old') })
    expect(await passwords.verify('alice', 'old', '192.0.2.1')).toBe('right')
    map.set('alice', hashOf('new'))
    expect(await passwords.verify('alice', 'old', '192.0.2.1')).toBe('wrong')
    expect(await passwords.verify('alice', 'new', '192.0.2.1')).toBe('right')
    map.delete('alice')
    expect(await passwords.verify('alice', 'new', '192.0.2.1')).toBe('unknown-user')
  })

  it('of a user who is not known take as long to refuse', async () => {
    const { passwords } = passwordsOf({ alice: hashOf('right', 10), bob: hashOf('right', 4) }, { concurrent: 1 })
    const timeOf = async (user: string): Promise<number> => {
      const begin = process.cpuUsage()
      await passwords.verify(user, 'wrong', '192.0.2.1')
      const { user: microseconds } = process.cpuUsage(begin)
      return microseconds
    }
    // Of each the quickest of three: what else the machine does only adds to it.
    const [known, unknown] = [[] as number[], [] as number[]]
    for (let round = 0; round < 3; round++) {
      known.push(await timeOf('alice'))
      unknown.push(await timeOf('mallory'))
    }
    expect(Math.min(...unknown) / Math.min(...known)).toBeGreaterThan(0.7)
    expect(Math.min(...unknown) / Math.min(...known)).toBeLessThan(1.4)
  })

  it('are not checked in the event loop', async () => {
    const { passwords } = passwordsOf({ alice: hashOf('right', 12) })
    const delay = monitorEventLoopDelay({ resolution: 1 })
    const begin = performance.now()
    delay.enable()
    await passwords.verify('alice', 'wrong', '192.0.2.1')
    delay.disable()
    expect(delay.max / 1e6).toBeLessThan((performance.now() - begin) / 2)
  })

  it('that are right are not computed again for a minute', async () => {
    let now = 0
    const { passwords } = passwordsOf({ alice: hashOf('right', 11) }, { now: () => now })
    const cpuTime = async (): Promise<number> => {
      const begin = process.cpuUsage()
      expect(await passwords.verify('alice', 'right', '192.0.2.1')).toBe('right')
      return process.cpuUsage(begin).user
    }
    const first = await cpuTime()
    expect(await cpuTime()).toBeLessThan(first / 4)
    now = 60_000
    expect(await cpuTime()).toBeGreaterThan(first / 2)
  })
})

describe('a flood of wrong passwords', () => {
  it('from one address is refused, and from another one is not', async () => {
    let now = 0
    const { passwords } = passwordsOf({ alice: hashOf('right') }, { now: () => now, concurrent: 1 })
    const guess = (address: string) => passwords.verify('alice', 'guess', address)
    for (let attempt = 0; attempt < 10; attempt++) expect(await guess('2001:db8:0:1::7')).toBe('wrong')
    await expect(guess('2001:db8:0:1::8')).rejects.toMatchObject({
      reason: 'too-many-attempts',
      httpStatus: 429,
      retryAfter: 10,
    })
    // The right one is among those that an attacker tries.
    await expect(passwords.verify('alice', 'right', '2001:db8:0:1::7')).rejects.toMatchObject({ retryAfter: 10 })
    expect(await passwords.verify('alice', 'right', '2001:db8:0:2::7')).toBe('right')
    now += 10_000
    expect(await guess('2001:db8:0:1::7')).toBe('wrong')
    await expect(guess('2001:db8:0:1::7')).rejects.toMatchObject({ reason: 'too-many-attempts' })
  })

  it('all at once is no way around it', async () => {
    const { passwords } = passwordsOf({ alice: hashOf('right') }, { concurrent: 2 })
    const guesses = Array.from({ length: 90 }, (_, index) => passwords.verify('alice', `guess ${index}`, '192.0.2.1'))
    const results = await Promise.allSettled(guesses)
    const checked = results.filter(result => result.status === 'fulfilled')
    // Those that were being computed when the tenth was wrong are done with.
    expect(checked.length).toBeGreaterThanOrEqual(10)
    expect(checked.length).toBeLessThanOrEqual(12)
  })

  it('does not hold up the passwords of others', async () => {
    const { passwords } = passwordsOf({ alice: hashOf('right', 8) }, { concurrent: 1 })
    const flood = Array.from({ length: 200 }, () => passwords.verify('alice', 'guess', '192.0.2.1'))
    const refused = Promise.allSettled(flood)
    let over = false
    void refused.then(() => (over = true))
    expect(await passwords.verify('alice', 'right', '192.0.2.2')).toBe('right')
    expect(over).toBe(false)
    const reasons = (await refused).flatMap(result => (result.status === 'rejected' ? [result.reason.reason] : []))
    expect(new Set(reasons)).toEqual(new Set(['too-many-attempts']))
  })

  it('counts those for users whom nobody knows once it is said so', async () => {
    const { passwords } = passwordsOf({ alice: hashOf('right') })
    for (let attempt = 0; attempt < 10; attempt++) {
      expect(await passwords.verify(`user ${attempt}`, 'x', '192.0.2.1')).toBe('unknown-user')
      passwords.wrong.count('192.0.2.1')
    }
    await expect(passwords.verify('alice', 'right', '192.0.2.1')).rejects.toMatchObject({ reason: 'too-many-attempts' })
  })
})
