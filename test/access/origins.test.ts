import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileOrigins } from '../../src/access/origins.js'

const allows = (entry: string, origin: string): boolean => compileOrigins([entry])(origin, 'gateway.example', true)

describe('an origin that is listed', () => {
  it.each([
    ['https://a.example', 'https://a.example', true],
    ['https://a.example/', 'https://a.example', true],
    ['HTTPS://A.Example', 'https://a.example', true],
    ['https://a.example:443', 'https://a.example', true],
    ['https://a.example', 'https://a.example:443', true],
    ['https://a.example', 'https://a.example:8443', false],
    ['https://a.example', 'http://a.example', false],
    ['https://a.example', 'https://a.example.evil.example', false],
    ['https://a.example', 'https://xa.example', false],
    ['https://a.example', 'https://a.exampl', false],
    ['https://a.example', 'https://a.example@evil.example', false],
    ['https://a.example', 'https://a.example/path', false],
    ['https://a.example', 'https://a.example\\.evil.example', false],
    ['https://a.example', ' https://a.example', false],
    ['https://bücher.example', 'https://xn--bcher-kva.example', true],
    ['http://[::1]:8080', 'http://[0:0:0:0:0:0:0:1]:8080', true],
    ['https://*.a.example', 'https://b.a.example', true],
    ['https://*.a.example', 'https://c.b.a.example', true],
    ['https://*.a.example', 'https://a.example', false],
    ['https://*.a.example', 'https://ba.example', false],
    ['https://*.a.example', 'http://b.a.example', false],
    ['https://*.a.example:8443', 'https://b.a.example:8443', true],
    ['https://*.a.example:8443', 'https://b.a.example', false],
    ['*.a.example', 'http://b.a.example:81', true],
    ['*.a.example', 'https://b.a.example.evil.example', false],
    ['a.example', 'http://a.example:81', true],
    ['a.example', 'https://a.example', true],
    ['a.example', 'https://b.a.example', false],
    ['a.example:8443', 'https://a.example:8443', true],
    ['a.example:8443', 'https://a.example', false],
    ['a.example:443', 'https://a.example', true],
    ['[::1]', 'http://[::1]:8080', true],
    ['capacitor://localhost', 'capacitor://localhost', true],
    ['capacitor://localhost', 'https://localhost', false],
    ['/^https:\\/\\/a\\./', 'https://a.example', true],
    ['/^https:\\/\\/a\\./', 'https://b.example', false],
    ['/example/', 'https://b.example', true],
    ['null', 'null', true],
    ['null', 'https://a.example', false],
    ['*', 'null', true],
    ['*', 'https://a.example', true],
    ['https://a.example', 'null', false],
    ['same-origin', 'null', false],
  ])('%s and a page of %s: %s', (entry, origin, expected) => {
    expect(allows(entry, origin)).toBe(expected)
  })

  it.each([
    '',
    '/',
    'https://',
    'https://a.example/path',
    'https://u:p@a.example',
    'a b',
    'https://*',
    '*.',
    '::1',
    '/(/',
  ])('is an error when it reads %j', entry => {
    expect(() => compileOrigins([entry])).toThrow(TypeError)
  })

  it('is not looked for in a header that is too long to be an origin', () => {
    expect(allows('/a$/', `https://${'a'.repeat(600)}`)).toBe(false)
  })
})

describe('the same origin', () => {
  const sameOrigin = compileOrigins(['same-origin'])
  it.each([
    ['https://a.example', 'a.example', true, true],
    ['https://a.example', 'A.EXAMPLE:443', true, true],
    ['https://a.example:8443', 'a.example:8443', true, true],
    ['https://a.example:8443', 'a.example', true, false],
    ['http://a.example', 'a.example', false, true],
    ['http://a.example', 'a.example', true, false],
    ['https://a.example', 'a.example', false, true],
    ['https://b.example', 'a.example', true, false],
    ['http://localhost:8080', '127.0.0.1:8080', false, false],
    ['http://[::1]:8080', '[::1]:8080', false, true],
    ['ftp://a.example', 'a.example', false, false],
    ['https://a.example', undefined, true, false],
    ['https://a.example', 'a.example/x', true, false],
    ['https://a.example', 'evil.example@a.example', true, false],
  ])('page %s, host %s, encrypted %s: %s', (origin, host, secure, expected) => {
    expect(sameOrigin(origin, host, secure)).toBe(expected)
  })
})

describe('a request without Origin', () => {
  it('passes, since no browser made it', () => {
    expect(compileOrigins([])(undefined, 'a.example', false)).toBe(true)
  })
  it('is refused where one is required, whatever is listed', () => {
    expect(compileOrigins(['*'], { requireOrigin: true })(undefined, 'a.example', false)).toBe(false)
  })
})

describe('any list', () => {
  const label = fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/)
  const domain = fc.tuple(label, label).map(([name, top]) => `${name}.${top}`)
  const port = fc.option(fc.integer({ min: 1, max: 65535 }), { nil: undefined })

  it('allows exactly the hosts that it names', () => {
    fc.assert(
      fc.property(domain, domain, port, (listed, asked, number) => {
        const origin = `https://${asked}${number === undefined ? '' : `:${number}`}`
        expect(allows(listed, origin)).toBe(listed === asked)
      }),
    )
  })

  it('never takes a longer or shorter host for a listed one', () => {
    fc.assert(
      fc.property(domain, label, (listed, extra) => {
        for (const entry of [listed, `https://${listed}`]) {
          expect(allows(entry, `https://${listed}${extra}`)).toBe(false)
          expect(allows(entry, `https://${listed}.${extra}`)).toBe(false)
          expect(allows(entry, `https://${extra}${listed}`)).toBe(false)
          expect(allows(entry, `https://${extra}.${listed}`)).toBe(false)
          expect(allows(entry, `https://${listed.slice(0, -1)}`)).toBe(false)
        }
        expect(allows(`*.${listed}`, `https://${extra}.${listed}`)).toBe(true)
        expect(allows(`*.${listed}`, `https://${extra}${listed}`)).toBe(false)
      }),
    )
  })

  it('answers whatever the headers hold', () => {
    const policy = compileOrigins(['same-origin', 'https://a.example', '*.b.example'])
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }),
        fc.string({ unit: 'binary' }),
        fc.boolean(),
        (origin, host, secure) => {
          expect(typeof policy(origin, host, secure)).toBe('boolean')
          expect(typeof policy(`https://${origin}`, host, secure)).toBe('boolean')
        },
      ),
    )
  })
})
