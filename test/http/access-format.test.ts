import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { type AccessRecord, accessFormats, withoutSecrets } from '../../src/http/access-format.js'

const record: AccessRecord = {
  id: 'id-1',
  peer: '192.0.2.1',
  user: 'ada',
  time: new Date('2026-02-03T04:05:06.789Z'),
  method: 'GET',
  target: '/a?b=c',
  protocol: 'HTTP/2.0',
  host: 'a.example',
  referer: 'https://b.example/?token=x',
  userAgent: 'Agent "1"',
  secure: true,
  status: 200,
  bytes: 5,
  duration: 1.26,
}

test('the formats of Apache and lighttpd', () => {
  const common = '192.0.2.1 - ada [03/Feb/2026:04:05:06 +0000] "GET /a?b=c HTTP/2.0" 200 5'
  expect(accessFormats.common(record)).toBe(common)
  expect(accessFormats.combined(record)).toBe(`${common} "https://b.example/?token=[redacted]" "Agent \\"1\\""`)
  const bare = { ...record, user: undefined, referer: undefined, userAgent: undefined, method: undefined, bytes: 0 }
  expect(accessFormats.combined(bare)).toBe('192.0.2.1 - - [03/Feb/2026:04:05:06 +0000] "-" 200 - "-" "-"')
})

test('JSON has everything', () => {
  expect(JSON.parse(accessFormats.json(record))).toEqual({
    ...{ time: '2026-02-03T04:05:06.789Z', id: 'id-1', peer: '192.0.2.1', user: 'ada', method: 'GET' },
    ...{ url: '/a?b=c', protocol: 'HTTP/2.0', host: 'a.example', secure: true, status: 200, bytes: 5, ms: 1.3 },
    ...{ referer: 'https://b.example/?token=[redacted]', userAgent: 'Agent "1"' },
  })
})

describe('what a client sends', () => {
  it('forges no line and controls no terminal', () => {
    const text = fc.string({ unit: fc.integer({ min: 0, max: 0xff }).map(code => String.fromCharCode(code)) })
    const name = fc.string({ unit: 'binary', minLength: 1 })
    fc.assert(
      fc.property(text, text, name, (target, agent, user) => {
        const sent = { ...record, target, referer: agent, userAgent: agent, user }
        for (const format of Object.values(accessFormats)) expect(format(sent)).toMatch(/^[ -~]*$/)
        expect(JSON.parse(accessFormats.json(sent)).userAgent).toBe(agent)
        expect(accessFormats.combined(sent)).toMatch(
          /^\S+ - \S+ \[[^\]]+\] "(?:[^"\\]|\\.)*" 200 5 "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*"$/,
        )
      }),
    )
  })

  it('makes no line longer than some kilobytes', () => {
    const long = '\x01'.repeat(100_000)
    for (const format of Object.values(accessFormats))
      expect(format({ ...record, target: long, referer: long, userAgent: long }).length).toBeLessThan(50_000)
  })
})

test.each([
  ['/v1/events?topic=a%2Fb&ticket=abc', '/v1/events?topic=a%2Fb&ticket=[redacted]'],
  ['/?%74icket=abc', '/?%74icket=[redacted]'],
  [
    '/?accessToken=a&id_token=b&X-Amz-Signature=c&apiKey=d',
    '/?accessToken=[redacted]&id_token=[redacted]&X-Amz-Signature=[redacted]&apiKey=[redacted]',
  ],
  ['/?TICKET=abc;password=b', '/?TICKET=[redacted];password=[redacted]'],
  ['/?monkey=1&compass=2&barcode=3', '/?monkey=1&compass=2&barcode=3'],
  ['/?x=eyJhbGciOiJIUzI1NiJ9.e30.x', '/?x=[redacted]'],
  ['/?eyJhbGciOiJIUzI1NiJ9.e30.x', '/?[redacted]'],
  ['/?%zz=abc', '/?%zz=[redacted]'],
  ['/?a=?ticket=b', '/?a=?ticket=b'],
  ['https://ada:secret@a.example/b?c=d#token=e', 'https://a.example/b?c=d'],
  ['/plain', '/plain'],
  ['/?', '/?'],
])('of %s the log has %s', (url, logged) => {
  expect(withoutSecrets(url)).toBe(logged)
})
