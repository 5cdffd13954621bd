import bcrypt from 'bcrypt'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Passwords } from '../../src/access/passwords.js'
import { Tickets } from '../../src/access/tickets.js'
import { anonymous, identityOf } from '../../src/base/identity.js'
import { MemoryState } from '../../src/storage/memory-state.js'

const alice = identityOf('alice', 'password', { roles: ['editor'] })
const refused = expect.objectContaining({ reason: 'identity-refused' })

function ticketsOf(options: { expires?: number; max?: number } = {}) {
  let now = 1_700_000_000_000
  const state = new MemoryState(() => now)
  const tickets = new Tickets({ expires: 30_000, max: 1000, ...options, state, now: () => now })
  return { tickets, now: () => now, pass: (milliseconds: number) => (now += milliseconds) }
}

describe('a ticket', () => {
  it('stands for whoever it was made for, once', async () => {
    const { tickets, now } = ticketsOf()
    const { ticket, expires } = await tickets.issue(alice)
    expect(ticket).toMatch(/^[\w-]{43}$/)
    expect(expires).toBe(now() + 30_000)
    expect(await tickets.redeem(ticket)).toEqual({ ...alice, source: 'ticket' })
    await expect(tickets.redeem(ticket)).rejects.toThrow(refused)
  })

  it('can be used until it expires, and no longer', async () => {
    const { tickets, pass } = ticketsOf()
    const [first, second] = [await tickets.issue(alice), await tickets.issue(alice)]
    pass(29_999)
    expect((await tickets.redeem(first.ticket)).user).toBe('alice')
    pass(1)
    await expect(tickets.redeem(second.ticket)).rejects.toThrow(refused)
  })

  it('is worth nothing after the token that it was made with', async () => {
    const { tickets, now, pass } = ticketsOf()
    const { ticket } = await tickets.issue(identityOf('bob', 'token', { expires: now() + 1000 }))
    pass(1000)
    await expect(tickets.redeem(ticket)).rejects.toThrow(refused)
  })

  it('of a password is worth nothing once that is another one', async () => {
    const state = new MemoryState()
    const usersOf = (hash: string) => new Passwords({ users: () => new Map([['alice', hash]]) })
    const [old, changed] = [bcrypt.hashSync('right', 4), bcrypt.hashSync('other', 4)]
    const [here, same, other] = [usersOf(old), usersOf(old), usersOf(changed)]
    const at = (passwords: Passwords) =>
      new Tickets({
        ...{ expires: 30_000, max: 100, state },
        revocationOf: (user, credential) => passwords.revocationOf(user, credential),
      })
    const verified = await here.verify('alice', 'right', '')
    if (typeof verified === 'string') throw new Error(verified)
    const issue = async () => (await at(here).issue(verified)).ticket
    await expect(at(other).redeem(await issue())).rejects.toThrow(refused)
    const { revocation } = await at(same).redeem(await issue())
    expect(revocation?.revoked).toBe(false)
    expect(await same.verify('alice', 'right', '')).toMatchObject({ revocation })
  })

  it('is not for somebody without a name', async () => {
    await expect(ticketsOf().tickets.issue(anonymous)).rejects.toThrow(
      expect.objectContaining({ reason: 'identity-required' }),
    )
  })

  it('cannot be made up', async () => {
    const { tickets } = ticketsOf()
    await tickets.issue(alice)
    for (const ticket of ['', 'x', 'x'.repeat(43), 'x'.repeat(100_000), '__proto__']) {
      await expect(tickets.redeem(ticket)).rejects.toThrow(refused)
    }
  })

  it('is another one each time', async () => {
    const { tickets } = ticketsOf()
    const all = await Promise.all(
      Array.from({ length: 500 }, (_, index) => tickets.issue(identityOf(`user ${index}`, 'token'))),
    )
    expect(new Set(all.map(({ ticket }) => ticket)).size).toBe(500)
  })
})

describe('tickets that wait', () => {
  it('are so many and no more, and those of one user void only their own', async () => {
    const { tickets } = ticketsOf({ max: 150 })
    const { ticket: bob } = await tickets.issue(identityOf('bob', 'token'))
    const own: string[] = []
    while (own.length < 101) own.push((await tickets.issue(alice)).ticket)
    await expect(tickets.redeem(own[0] ?? '')).rejects.toThrow(refused)
    expect((await tickets.redeem(own[1] ?? '')).user).toBe('alice')
    for (let count = 0; count < 50; count++) await tickets.issue(identityOf(`user ${count}`, 'token'))
    await expect(tickets.issue(identityOf('carol', 'token'))).rejects.toThrow(
      expect.objectContaining({ reason: 'too-many-tickets', httpStatus: 503 }),
    )
    expect((await tickets.redeem(bob)).user).toBe('bob')
  })

  it('are what was made and neither used nor expired', async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('issue' as const), user: fc.constantFrom('a', 'b') }),
      fc.record({ kind: fc.constant('redeem' as const), which: fc.nat(20) }),
      fc.record({ kind: fc.constant('pass' as const), time: fc.nat(40) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async steps => {
        const { tickets, now, pass } = ticketsOf({ expires: 50, max: 1000 })
        const made: { ticket: string; user: string; until: number; used: boolean }[] = []
        for (const next of steps) {
          if (next.kind === 'pass') pass(next.time)
          else if (next.kind === 'issue') {
            const { ticket, expires } = await tickets.issue(identityOf(next.user, 'token'))
            made.push({ ticket, user: next.user, until: expires, used: false })
          } else {
            const one = made[next.which]
            if (one === undefined) continue
            const good = !one.used && one.until > now()
            one.used = true
            if (good) expect((await tickets.redeem(one.ticket)).user).toBe(one.user)
            else await expect(tickets.redeem(one.ticket)).rejects.toThrow(refused)
          }
        }
      }),
    )
  })
})
