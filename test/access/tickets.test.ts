import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Tickets } from '../../src/access/tickets.js'
import { anonymous, identityOf } from '../../src/base/identity.js'

const alice = identityOf('alice', 'password', { roles: ['editor'] })
const refused = expect.objectContaining({ reason: 'identity-refused' })

function ticketsOf(options: { expires?: number; max?: number } = {}) {
  let now = 1_700_000_000_000
  const tickets = new Tickets({ expires: 30_000, max: 1000, ...options, now: () => now })
  return { tickets, now: () => now, pass: (milliseconds: number) => (now += milliseconds) }
}

describe('a ticket', () => {
  it('stands for whoever it was made for, once', () => {
    const { tickets, now } = ticketsOf()
    const { ticket, expires } = tickets.issue(alice)
    expect(ticket).toMatch(/^[\w-]{43}$/)
    expect(expires).toBe(now() + 30_000)
    expect(tickets.redeem(ticket)).toEqual({ ...alice, source: 'ticket' })
    expect(() => tickets.redeem(ticket)).toThrow(refused)
    expect(tickets.size).toBe(0)
  })

  it('can be used until it expires, and no longer', () => {
    const { tickets, pass } = ticketsOf()
    const [first, second] = [tickets.issue(alice), tickets.issue(alice)]
    pass(29_999)
    expect(tickets.redeem(first.ticket).user).toBe('alice')
    pass(1)
    expect(() => tickets.redeem(second.ticket)).toThrow(refused)
  })

  it('is worth nothing after the token that it was made with', () => {
    const { tickets, now, pass } = ticketsOf()
    const { ticket } = tickets.issue(identityOf('bob', 'token', { expires: now() + 1000 }))
    pass(1000)
    expect(() => tickets.redeem(ticket)).toThrow(refused)
  })

  it('is not for somebody without a name', () => {
    expect(() => ticketsOf().tickets.issue(anonymous)).toThrow(expect.objectContaining({ reason: 'identity-required' }))
  })

  it('cannot be made up', () => {
    const { tickets } = ticketsOf()
    tickets.issue(alice)
    for (const ticket of ['', 'x', 'x'.repeat(43), 'x'.repeat(100_000), '__proto__']) {
      expect(() => tickets.redeem(ticket)).toThrow(refused)
    }
    expect(tickets.size).toBe(1)
  })

  it('is another one each time', () => {
    const { tickets } = ticketsOf()
    const all = Array.from({ length: 500 }, (_, index) => tickets.issue(identityOf(`user ${index}`, 'token')).ticket)
    expect(new Set(all).size).toBe(500)
  })
})

describe('tickets that wait', () => {
  it('are so many and no more, and those of one user void only their own', () => {
    const { tickets } = ticketsOf({ max: 150 })
    const bob = tickets.issue(identityOf('bob', 'token')).ticket
    const own = Array.from({ length: 101 }, () => tickets.issue(alice).ticket)
    expect(() => tickets.redeem(own[0] ?? '')).toThrow(refused)
    expect(tickets.redeem(own[1] ?? '').user).toBe('alice')
    for (let count = 0; count < 50; count++) tickets.issue(identityOf(`user ${count}`, 'token'))
    expect(() => tickets.issue(identityOf('carol', 'token'))).toThrow(
      expect.objectContaining({ reason: 'too-many-tickets', httpStatus: 503 }),
    )
    expect(tickets.redeem(bob).user).toBe('bob')
  })

  it('are what was made and neither used nor expired', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('issue' as const), user: fc.constantFrom('a', 'b') }),
      fc.record({ kind: fc.constant('redeem' as const), which: fc.nat(20) }),
      fc.record({ kind: fc.constant('pass' as const), time: fc.nat(40) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), steps => {
        const { tickets, now, pass } = ticketsOf({ expires: 50, max: 1000 })
        const made: { ticket: string; user: string; until: number; used: boolean }[] = []
        for (const next of steps) {
          if (next.kind === 'pass') pass(next.time)
          else if (next.kind === 'issue') {
            const { ticket, expires } = tickets.issue(identityOf(next.user, 'token'))
            made.push({ ticket, user: next.user, until: expires, used: false })
          } else {
            const one = made[next.which]
            if (one === undefined) continue
            const good = !one.used && one.until > now()
            one.used = true
            if (good) expect(tickets.redeem(one.ticket).user).toBe(one.user)
            else expect(() => tickets.redeem(one.ticket)).toThrow(refused)
          }
          expect(tickets.size).toBe(made.filter(one => !one.used && one.until > now()).length)
        }
      }),
    )
  })
})
