import { monitorEventLoopDelay } from 'node:perf_hooks'
import bcrypt from 'bcrypt'
import { describe, expect, it } from 'vitest'
import { isExpired, onExpired } from '../../src/access/expiry.js'
import { type PasswordResult, Passwords } from '../../src/access/passwords.js'

const cost = 4
const hashOf = (password: string, rounds = cost): string => bcrypt.hashSync(password, rounds)

function passwordsOf(users: Record<string, string>, options: { concurrent?: number; now?: () => number } = {}) {
  const map = new Map(Object.entries(users))
  const passwords = new Passwords({ users: () => map, ...options })
  /** What is found out of a password; what was found out before counts. */
  const verify = async (user: string, password: string, address = '192.0.2.1'): Promise<string> => {
    const verdict = passwords.cached(user, password) ?? (await passwords.verify(user, password, address))
    return typeof verdict === 'object' ? 'right' : verdict
  }
  return { map, passwords, verify }
}

describe('passwords', () => {
  it.each(['$2a', '$2b', '$2y'])('of %s hashes are right or wrong', async prefix => {
    const { verify } = passwordsOf({ alice: hashOf('open sesame').replace(/^\$2b/, prefix) })
    expect(await verify('alice', 'open sesame')).toBe('right')
    expect(await verify('alice', 'open sesam')).toBe('wrong')
    expect(await verify('alice', '')).toBe('wrong')
    expect(await verify('bob', 'open sesame')).toBe('unknown-user')
  })

  it('that are longer than bcrypt looks at are wrong, also where their beginning is right', async () => {
    const long = 'x'.repeat(72)
    const { verify } = passwordsOf({ alice: hashOf(long), bob: hashOf('') })
    expect(await verify('alice', `${long}y`)).toBe('wrong')
    expect(await verify('alice', 'x\0')).toBe('wrong')
    expect(await verify('bob', '')).toBe('wrong')
    expect(await verify('alice', long)).toBe('right')
  })

  it('no password is that of a user whom the file does not have', async () => {
    const { verify } = passwordsOf({})
    for (const user of ['', 'constructor', '__proto__']) {
      expect(await verify(user, 'x')).toBe('unknown-user')
    }
  })

  it('are forgotten when the user gets a new one', async () => {
    const { map, verify } = passwordsOf({ alice: hashOf('old') })
    expect(await verify('alice', 'old')).toBe('right')
    map.set('alice', hashOf('new'))
    expect(await verify('alice', 'old')).toBe('wrong')
    expect(await verify('alice', 'new')).toBe('right')
    map.delete('alice')
    expect(await verify('alice', 'new')).toBe('unknown-user')
  })

  it('of a user who is not known take as long to refuse', async () => {
    const { verify } = passwordsOf({ alice: hashOf('right', 10), bob: hashOf('right', 4) }, { concurrent: 1 })
    const timeOf = async (user: string): Promise<number> => {
      const begin = process.cpuUsage()
      await verify(user, 'wrong')
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
    const { verify } = passwordsOf({ alice: hashOf('right', 12) })
    const delay = monitorEventLoopDelay({ resolution: 1 })
    const begin = performance.now()
    delay.enable()
    await verify('alice', 'wrong')
    delay.disable()
    expect(delay.max / 1e6).toBeLessThan((performance.now() - begin) / 2)
  })

  it('that are right are not computed again for a minute', async () => {
    let now = 0
    const { verify } = passwordsOf({ alice: hashOf('right', 11) }, { now: () => now })
    const cpuTime = async (): Promise<number> => {
      const begin = process.cpuUsage()
      expect(await verify('alice', 'right')).toBe('right')
      return process.cpuUsage(begin).user
    }
    const first = await cpuTime()
    expect(await cpuTime()).toBeLessThan(first / 4)
    now = 60_000
    expect(await cpuTime()).toBeGreaterThan(first / 2)
  })
})

describe('a flood of passwords from one address', () => {
  it('does not hold up those of others, and is refused where it is too much', async () => {
    const { verify } = passwordsOf({ alice: hashOf('right', 8) }, { concurrent: 1 })
    const flood = Promise.allSettled(Array.from({ length: 200 }, () => verify('alice', 'guess')))
    let over = false
    void flood.then(() => (over = true))
    expect(await verify('alice', 'right', '192.0.2.2')).toBe('right')
    expect(over).toBe(false)
    const reasons = (await flood).flatMap(result => (result.status === 'rejected' ? [result.reason.reason] : []))
    expect(reasons).toEqual(Array(99).fill('too-many-attempts'))
  })
})

describe('who was let in with a password', () => {
  const watched = (identity: PasswordResult | undefined) => {
    const told: string[] = []
    if (typeof identity !== 'object') throw new Error('not let in')
    return { told, stop: onExpired(identity, ending => told.push(ending.text)), identity }
  }

  it.each([
    ['is taken away', undefined],
    ['becomes another', hashOf('new')],
    ['is written anew', hashOf('right')],
  ])('is told when it %s, and nobody else is', async (_how, hash) => {
    const { map, passwords } = passwordsOf({ alice: hashOf('right'), bob: hashOf('right') })
    const first = watched(await passwords.verify('alice', 'right', '192.0.2.1'))
    const second = watched(passwords.cached('alice', 'right'))
    const gone = watched(passwords.cached('alice', 'right'))
    const bob = watched(await passwords.verify('bob', 'right', '192.0.2.1'))
    gone.stop()
    passwords.usersChanged()
    expect(first.told).toEqual([])
    if (hash === undefined) map.delete('alice')
    else map.set('alice', hash)
    passwords.usersChanged()
    const text = 'Credentials expired: the password is another one now, or none'
    expect([first.told, second.told, gone.told, bob.told]).toEqual([[text], [text], [], []])
    expect([isExpired(first.identity), isExpired(bob.identity)]).toEqual([true, false])
    // Whoever begins to watch only now is told as well.
    const late = watched(first.identity)
    await new Promise(resolve => setImmediate(resolve))
    expect(late.told).toEqual([text])
    if (hash !== undefined) passwords.usersChanged()
    expect(first.told).toHaveLength(1)
  })

  it('is not when the password changed while it was looked at', async () => {
    const { map, passwords } = passwordsOf({ alice: hashOf('right') })
    const verdict = passwords.verify('alice', 'right', '192.0.2.1')
    map.set('alice', hashOf('new'))
    expect(await verdict).toBe('wrong')
  })
})
