import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { costOf, parseHtpasswd, passwordProblem, userNameProblem, withUser } from '../../src/access/htpasswd.js'

const hash = `$2y$05$${'a'.repeat(53)}`

describe('a password file', () => {
  it('is users and hashes, with comments and empty lines', () => {
    const users = parseHtpasswd(`# people\nalice:${hash}\r\n\n  \nbob jr:${hash.replace('2y', '2b')}\n`)
    expect([...users.keys()]).toEqual(['alice', 'bob jr'])
    expect(users.get('alice')).toBe(hash)
    expect(parseHtpasswd('').size).toBe(0)
  })

  it.each([
    ['alice', 'line 2 must be user:hash'],
    [`:${hash}`, 'line 2 must begin with a user name'],
    [
      `al\x1bice:${hash}`,
      'line 2 must begin with a user name of 1 to 255 bytes without control characters, not "al\\u001bice"',
    ],
    [`first:${hash}`, 'line 2 repeats the user "first"'],
    ['alice:$apr1$xxxxxxxx$yyyyyyyyyyyyyyyyyyyyyy', 'line 2 must have a bcrypt hash ($2y$…) for "alice"'],
    ['alice:secret', 'line 2 must have a bcrypt hash'],
    [`alice:${hash} `, 'line 2 must have a bcrypt hash'],
    [`alice:${hash.replace('$05', '$03')}`, 'line 2 must have a bcrypt hash'],
    [`alice:${hash.replace('$05', '$20')}`, 'line 2 must have a hash of cost 16 at most for "alice", not 20'],
  ])('is not one with %j', (line, problem) => {
    expect(() => parseHtpasswd(`first:${hash}\n${line}\n`)).toThrow(problem)
    expect(() => parseHtpasswd(`first:${hash}\n${line}\n`)).not.toThrow(/aaaa|yyyy|secret/)
  })

  it('says what a hash costs', () => {
    expect(['$2a$12$', '$2b$04$', '$2x$12$', '$2b$32$'].map(start => costOf(start + 'a'.repeat(53)))).toEqual([
      12,
      4,
      undefined,
      undefined,
    ])
  })

  it('keeps every other line when a user gets a hash', () => {
    const text = `# people\nalice:old\n\n# others\nbob:${hash}`
    expect(withUser(text, 'alice', 'new')).toBe(`# people\nalice:new\n\n# others\nbob:${hash}`)
    expect(withUser(text, 'carol', 'new')).toBe(`${text}\ncarol:new\n`)
    expect(withUser('', 'carol', 'new')).toBe('carol:new\n')
  })

  it('takes every name that it lets be written, and gives back what was written', () => {
    const name = fc.string({ unit: 'grapheme', maxLength: 20 })
    fc.assert(
      fc.property(fc.array(name), names => {
        const fit = [...new Set(names.filter(user => userNameProblem(user) === undefined))]
        const text = fit.reduce((before, user) => withUser(before, user, hash), '')
        expect([...parseHtpasswd(text).keys()]).toEqual(fit)
      }),
    )
  })
})

describe('what may be a name and a password', () => {
  it.each(['a:b', '#a', '', 'a\nb:c', 'a\r', 'a\0', 'a\u0085', 'a\u2028b', '\ud800', 'ä'.repeat(128)])(
    '%j is no name',
    user => {
      expect(userNameProblem(user)).toMatch(/^must/)
    },
  )

  it.each(['a', 'ä b', 'a#', 'a@b.example', '日本', 'x'.repeat(255)])('%s is a name', user => {
    expect(userNameProblem(user)).toBeUndefined()
  })

  it('72 bytes are the longest password', () => {
    expect(passwordProblem('ä'.repeat(36))).toBeUndefined()
    expect(passwordProblem(`${'ä'.repeat(36)}x`)).toMatch(/at most 72 bytes, not 73: bcrypt/)
    expect(passwordProblem('')).toMatch(/empty/)
    expect(passwordProblem('a\0b')).toMatch(/U\+0000/)
  })
})
