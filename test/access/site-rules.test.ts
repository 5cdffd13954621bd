import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SiteRules } from '../../src/access/site-rules.js'
import { compileTunnelConditions } from '../../src/access/tunnel-conditions.js'

describe('denied paths', () => {
  const site = new SiteRules({ deny: ['~', '.php', '/^/private//'] })

  it.each([
    '/x.php',
    '/x%2ephp',
    '/x.%70hp',
    '//x.php',
    '/a/../x.php',
    '/x~',
    '/private/a',
    '//private/a',
    '/%70rivate/a',
    '/a/../private/a',
    '/private/%zz',
    '/%70rivate/%zz',
    '/%70rivate/%ff',
  ])('%s is refused', path => expect(() => site.checkPath(path)).toThrow('This path is not served'))

  it.each(['/', '/x.php.html', '/x.phpx', '/privately', '/a/private/a', '/%', '/~user'])('%s is not', path => {
    expect(() => site.checkPath(path)).not.toThrow()
  })

  it('are refused in every spelling of their characters', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }), escaped => {
        const name = [...'x.php'].map((c, i) => (escaped[i] ? `%${c.charCodeAt(0).toString(16)}` : c)).join('')
        expect(() => site.checkPath(`/${name}`)).toThrow()
      }),
    )
  })
})

describe('addresses that may connect', () => {
  it('are everybody where none is named', () => {
    expect(() => new SiteRules({ deny: [] }).checkAddress('203.0.113.1')).not.toThrow()
  })

  it('are those in the ranges; a Unix socket is one of loopback', () => {
    const site = new SiteRules({ allow: ['10.0.0.0/8', 'loopback'], deny: [] })
    for (const address of ['10.1.2.3', '127.0.0.9', '::1', 'unix'])
      expect(() => site.checkAddress(address)).not.toThrow()
    for (const address of ['11.0.0.1', '2001:db8::1']) expect(() => site.checkAddress(address)).toThrow()
  })
})

describe('a tunnel’s host and port', () => {
  it.each([
    ['a.example', 'a.example', true],
    ['a.example', 'A.Example:8080', true],
    ['a.example', 'b.a.example', false],
    ['*.a.example', 'b.a.example:1', true],
    ['*.a.example', 'a.example', false],
    ['/^a\\./', 'a.example', true],
    ['a.example', undefined, false],
    ['a.example', 'a.example/', false],
  ])('of %s is%s there at the Host %s: %s', (pattern, host, there) => {
    expect(compileTunnelConditions({ hosts: [pattern] }).isAt?.(host, 80)).toBe(there)
  })

  it('may be limited together, and are not looked at where nothing is said', () => {
    const { isAt, allowsAddress } = compileTunnelConditions({ hosts: ['a'], ports: [80, 'unix:/x'] })
    expect([isAt?.('a', 80), isAt?.('a', undefined), isAt?.('a', 81), isAt?.('b', 80)]).toEqual([
      true,
      true,
      false,
      false,
    ])
    expect(allowsAddress).toBeUndefined()
    expect(compileTunnelConditions({})).toEqual({})
    expect(compileTunnelConditions({ allow: ['10.0.0.0/8'] }).allowsAddress?.('10.1.1.1')).toBe(true)
  })
})

describe('hosts of a tunnel', () => {
  it.each([
    ['a.example', 'a.example:81', true],
    ['a.example', 'A.example.', true],
    ['/^a/', 'a.example:81', true],
    ['/^a\\.example$/', 'a.example:81', true],
    ['/(?!:)^a\\.example$/', 'a.example:81', false],
    ['/(?!:)^a\\.example$/', 'a.example:80', true],
    ['/:81$/', 'a.example:81', true],
    ['/:81$/', 'a.example', false],
    ['/^(?:a|b)\\.example$/', 'b.example:81', true],
    ['/^\\[::1\\]$/', '[::1]:81', true],
  ])('%s at %s: %s', (pattern, host, expected) => {
    expect(compileTunnelConditions({ hosts: [pattern] }).isAt?.(host, 80)).toBe(expected)
  })
})
