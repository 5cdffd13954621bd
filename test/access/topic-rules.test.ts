import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TopicRules } from '../../src/access/topic-rules.js'
import { anonymous, type Identity, identityOf } from '../../src/base/identity.js'
import type { AccessRule } from '../../src/config/access.js'

const bounds = { topicLevels: 32, topicLength: 1024 }
const alice = identityOf('alice', 'password')

type Given = Pick<AccessRule, 'to'> & Partial<AccessRule>

function rulesOf(...rules: Given[]): TopicRules {
  return new TopicRules({ rules: rules.map(rule => ({ publish: [], subscribe: [], ...rule })) }, bounds)
}

/** What somebody may do with a topic: p(ublish), s(ubscribe). */
function may(rules: TopicRules, identity: Identity, topic: string, clientId?: string): string {
  const permissions = rules.for(identity, clientId)
  const publish = permissions.mayPublish(topic) ? 'p' : ''
  return publish + (permissions.maySubscribe(topic) ? 's' : '')
}

describe('without rules', () => {
  it('and without access, everybody may do everything, as ever', () => {
    const rules = new TopicRules(undefined, bounds)
    expect(may(rules, anonymous, 'a/b')).toBe('ps')
    expect(may(rules, anonymous, '#')).toBe('s')
    expect(may(rules, anonymous, '$SYS/#')).toBe('s')
    expect(may(rules, anonymous, 'a#')).toBe('')
  })

  it('whoever is let in may do everything, except on topics that begin with $', () => {
    const rules = new TopicRules({ rules: undefined }, bounds)
    for (const identity of [alice, anonymous]) {
      expect(may(rules, identity, 'a/b')).toBe('ps')
      expect(may(rules, identity, '#')).toBe('s')
      expect(may(rules, identity, '$SYS/#')).toBe('')
      expect(may(rules, identity, '$SYS/a')).toBe('')
      expect(may(rules, identity, '$share/g/a')).toBe('')
    }
  })

  it('whoever brings rules of their own has only these', () => {
    const rules = new TopicRules({ rules: undefined }, bounds)
    const bob = identityOf('bob', 'token', { rules: { publish: ['out/%u'], subscribe: ['in/#'] } })
    expect(may(rules, bob, 'out/bob')).toBe('p')
    expect(may(rules, bob, 'in/x')).toBe('s')
    expect(may(rules, bob, 'x')).toBe('')
    expect(may(rules, identityOf('bob', 'token', { rules: { publish: [], subscribe: [] } }), 'x')).toBe('')
  })
})

describe('a rule', () => {
  it('for anonymous is for everybody', () => {
    const rules = rulesOf({ to: 'anonymous', subscribe: ['news/#'] })
    expect(may(rules, anonymous, 'news/#')).toBe('s')
    expect(may(rules, alice, 'news/sport')).toBe('s')
    expect(may(rules, alice, '#')).toBe('')
  })

  it('for authenticated is for whoever is known', () => {
    const rules = rulesOf({ to: 'authenticated', publish: ['#'] })
    expect(may(rules, anonymous, 'a')).toBe('')
    expect(may(rules, alice, 'a')).toBe('p')
  })

  it('for a user is for that one, or one of those', () => {
    const rules = rulesOf(
      { to: { user: 'alice' }, publish: ['a'] },
      { to: { user: ['bob', 'carol'] }, subscribe: ['$SYS/#'] },
    )
    expect(may(rules, alice, 'a')).toBe('p')
    expect(may(rules, alice, '$SYS/#')).toBe('')
    expect(may(rules, identityOf('carol', 'password'), '$SYS/uptime')).toBe('s')
    expect(may(rules, anonymous, 'a')).toBe('')
  })

  it('for a role is for whoever has it', () => {
    const rules = rulesOf({ to: { role: ['editor', 'admin'] }, publish: ['news/#'] })
    expect(may(rules, identityOf('a', 'token', { roles: ['admin'] }), 'news/a')).toBe('p')
    expect(may(rules, alice, 'news/a')).toBe('')
  })

  it('for claims is for a token that has all of them', () => {
    const rules = rulesOf({ to: { claim: { department: 'sales', level: 3 } }, publish: ['a'] })
    const withClaims = (claims: Record<string, unknown>) => identityOf('a', 'token', { claims })
    expect(may(rules, withClaims({ department: 'sales', level: 3 }), 'a')).toBe('p')
    expect(may(rules, withClaims({ department: ['it', 'sales'], level: 3 }), 'a')).toBe('p')
    expect(may(rules, withClaims({ department: 'sales', level: '3' }), 'a')).toBe('')
    expect(may(rules, withClaims({ department: 'sales' }), 'a')).toBe('')
    expect(may(rulesOf({ to: { claim: { constructor: 'a' } }, publish: ['a'] }), withClaims({}), 'a')).toBe('')
  })

  it('adds to the others, and to what a token brings', () => {
    const rules = rulesOf({ to: 'anonymous', subscribe: ['a'] }, { to: 'authenticated', subscribe: ['b'] })
    const bob = identityOf('bob', 'token', { rules: { publish: [], subscribe: ['c'] } })
    expect(['a', 'b', 'c', 'd'].map(topic => may(rules, bob, topic))).toEqual(['s', 's', 's', ''])
  })

  it('never covers a shared subscription, not even with its own name', () => {
    const bob = identityOf('bob', 'token', { rules: { publish: [], subscribe: ['$share/g/a', '#'] } })
    expect(may(rulesOf({ to: 'anonymous', subscribe: ['#'] }), bob, '$share/g/a')).toBe('')
  })

  it('is compiled once for all that it says the same for', () => {
    const rules = rulesOf({ to: 'authenticated', subscribe: ['a'] }, { to: { user: 'bob' }, subscribe: ['b/%u'] })
    expect(rules.for(alice)).toBe(rules.for(identityOf('carol', 'token')))
    expect(rules.for(alice)).not.toBe(rules.for(identityOf('bob', 'password')))
  })
})

describe('names in filters', () => {
  const rules = rulesOf({ to: 'anonymous', publish: ['chat/%u/#', 'device/%c'], subscribe: ['%u/#', '100%%/%c%u'] })

  it('stand for the user and the client', () => {
    expect(may(rules, alice, 'chat/alice/x', 'c1')).toBe('p')
    expect(may(rules, alice, 'chat/bob/x', 'c1')).toBe('')
    expect(may(rules, alice, 'device/c1', 'c1')).toBe('p')
    expect(may(rules, alice, 'alice/#', 'c1')).toBe('s')
    expect(may(rules, alice, '100%/c1alice', 'c1')).toBe('s')
  })

  it('give nothing where there is no name', () => {
    expect(may(rules, anonymous, 'chat//x')).toBe('')
    expect(may(rules, anonymous, 'device/', '')).toBe('')
    expect(rules.for(anonymous).dropped).toEqual(['chat/%u/#', 'device/%c', '%u/#', '100%%/%c%u'])
    expect(rules.for(alice, 'c1').dropped).toEqual([])
  })

  it.each(['+', '#', 'a/b', 'bob/#', '/', 'a\0', '', '%u/', 'x+'])('give nothing to somebody called %j', name => {
    const permissions = rules.for({ ...alice, user: name }, name)
    expect(permissions.dropped).toHaveLength(4)
    for (const topic of ['chat/bob/x', 'chat/+/x', `chat/${name}/x`, 'device/x']) {
      expect([topic, permissions.mayPublish(topic), permissions.maySubscribe(topic)]).toEqual([topic, false, false])
    }
  })

  it('do not lead to topics that begin with $', () => {
    const permissions = rules.for(identityOf('$SYS', 'password'), '$SYS')
    expect(permissions.maySubscribe('$SYS/#')).toBe(false)
    expect(permissions.mayPublish('device/$SYS')).toBe(true)
    expect(permissions.dropped).toEqual(['%u/#'])
  })

  it('reach no further than their own level, whatever they are', () => {
    const unit = fc.constantFrom('a', '+', '#', '/', '$', '%', 'u', 'c', '\0')
    const own = rulesOf({ to: 'authenticated', subscribe: ['own/%u/#'], publish: ['own/%u/x'] })
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 6 }), fc.string({ unit, maxLength: 10 }), (user, asked) => {
        const permissions = own.for(identityOf(user, 'token'))
        for (const topic of [asked, `own/${asked}`, `own/${user}/${asked}`]) {
          const inside = topic.split('/').slice(0, 2).join('/') === `own/${user}`
          if (!inside)
            expect([topic, permissions.mayPublish(topic), permissions.maySubscribe(topic)]).toEqual([
              topic,
              false,
              false,
            ])
        }
        const { dropped } = permissions
        expect(dropped.length > 0).toBe(user === '' || /[+#/\0]/.test(user))
      }),
      { numRuns: 2000 },
    )
  })
})

describe('topics out of bounds', () => {
  it('are refused also where everything is allowed', () => {
    const deep = Array(64).fill('a').join('/')
    for (const rules of [new TopicRules(undefined, bounds), new TopicRules({ rules: undefined }, bounds)]) {
      expect(may(rules, alice, deep)).toBe('')
      expect(may(rules, alice, 'x'.repeat(1025))).toBe('')
      expect(may(rules, alice, 'x'.repeat(1024))).toBe('ps')
    }
  })
})
