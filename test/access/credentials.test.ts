import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { forwardedHeaders, mqttCredential, readCredential } from '../../src/access/credentials.js'
import { GatewayError } from '../../src/base/errors.js'

const basic = (text: string | Buffer): string => `Basic ${Buffer.from(text).toString('base64')}`
const token = (text: string) => ({ kind: 'token', token: text })
const origin = 'https://a.example'
const cookie = 'session'

function reasonOf(work: () => unknown): string {
  try {
    return JSON.stringify(work())
  } catch (error) {
    return error instanceof GatewayError ? `${error.reason}: ${error.text.replace(/^.*?: /, '')}` : String(error)
  }
}

describe('the credential of a request', () => {
  it.each([
    [{}, undefined],
    [{ authorization: 'Bearer a.b.c' }, token('a.b.c')],
    [{ authorization: 'bearer   a.b.c ' }, token('a.b.c')],
    [{ authorization: basic('alice:se:cret') }, { kind: 'password', user: 'alice', password: 'se:cret' }],
    [{ authorization: basic('jürgen:ß') }, { kind: 'password', user: 'jürgen', password: 'ß' }],
    [{ authorization: basic('alice:') }, { kind: 'password', user: 'alice', password: '' }],
    [{ 'sec-websocket-protocol': 'mqtt, bearer.a.b.c' }, token('a.b.c')],
    [{ 'sec-websocket-protocol': 'mqtt,mqttv3.1' }, undefined],
    [{ cookie: 'a=1; session=a.b.c; b=2', origin }, token('a.b.c')],
    [{ cookie: 'session="a.b.c"', 'sec-fetch-site': 'same-origin' }, token('a.b.c')],
    [{ cookie: 'session=a.b.c; session=a.b.c', origin }, token('a.b.c')],
    [{ cookie: 'session=; a=1' }, undefined],
    [{ cookie: 'xsession=a; Session=b; session' }, undefined],
  ])('in %j', (headers, expected) => {
    expect(readCredential({ headers }, { cookie })).toEqual(expected)
  })

  it.each([
    ['/v1/events?topic=a&ticket=abc', { kind: 'ticket', ticket: 'abc' }],
    ['/?ticket=a%2Bb#ticket=x', { kind: 'ticket', ticket: 'a+b' }],
    ['/?Ticket=a&tickets=b', undefined],
    ['/?token=a.b.c&access_token=a.b.c&jwt=a.b.c', undefined],
    ['/ticket=a', undefined],
  ])('in %s', (url, expected) => {
    expect(readCredential({ headers: {}, url })).toEqual(expected)
  })

  it('is the first of ticket, Authorization, subprotocol, cookie and certificate', () => {
    const certificate = { user: 'alice', problem: undefined, expires: 1 }
    const headers = {
      authorization: 'Bearer one',
      'sec-websocket-protocol': 'bearer.two',
      cookie: 'session=three',
      origin,
    }
    const read = (url?: string) => readCredential({ headers, url }, { cookie, certificate })
    expect(read('/?ticket=x')).toEqual({ kind: 'ticket', ticket: 'x' })
    expect(read()).toEqual(token('one'))
    expect(readCredential({ headers: { ...headers, authorization: undefined } }, { cookie, certificate })).toEqual(
      token('two'),
    )
    expect(readCredential({ headers: { cookie: 'session=three', origin } }, { cookie, certificate })).toEqual(
      token('three'),
    )
    expect(readCredential({ headers: { cookie: 'session=three' } }, { certificate })).toEqual({
      kind: 'certificate',
      certificate,
    })
  })

  it.each([
    [{ authorization: '' }, 'identity-refused: Authorization must be Bearer or Basic'],
    [{ authorization: 'Digest username="a"' }, 'identity-refused: Authorization must be Bearer or Basic'],
    [{ authorization: 'Bearer' }, 'identity-refused: Authorization: Bearer has no token'],
    [{ authorization: 'Bearer a b' }, 'identity-refused: Authorization must be Bearer or Basic'],
    [{ authorization: 'Bearer a,b' }, 'identity-refused: Authorization: Bearer has no token'],
    [{ authorization: 'Basic' }, 'identity-refused: Authorization: Basic must be user:password in base64'],
    [{ authorization: 'Basic a:b' }, 'identity-refused: Authorization: Basic must be user:password in base64'],
    [{ authorization: basic('alice') }, 'identity-refused: Authorization: Basic must be user:password in base64'],
    [
      { authorization: basic(':secret') },
      'identity-refused: the user name must have 1 to 255 bytes, and no control characters',
    ],
    [{ authorization: basic('a\r\nX-Admin: 1:x') }, 'identity-refused: the user name must have 1 to 255 bytes'],
    [{ authorization: basic('a\u001b[2J:x') }, 'identity-refused: the user name must have'],
    [
      { authorization: basic(Buffer.from([0x61, 0xff, 0x3a, 0x62])) },
      'identity-refused: user name and password must be UTF-8',
    ],
    [{ 'sec-websocket-protocol': 'mqtt, bearer.' }, 'identity-refused: Sec-WebSocket-Protocol: bearer. has no token'],
    [{ 'sec-websocket-protocol': 'bearer.a, bearer.b' }, 'identity-refused: there are several subprotocols'],
    [{ cookie: 'session=a' }, 'origin-refused: a cookie counts only with Origin'],
    [{ cookie: 'session=a', 'sec-fetch-site': 'cross-site' }, 'origin-refused: a cookie counts only with Origin'],
    [{ cookie: 'session=a', 'sec-fetch-site': 'same-site' }, 'origin-refused'],
    [{ cookie: 'session=a; session=b', origin }, 'identity-refused: there are several cookies called session'],
    [{ cookie: 'session=a b', origin }, 'identity-refused: the cookie has no token'],
  ])('is refused in %j, and not taken for none', (headers, reason) => {
    expect(reasonOf(() => readCredential({ headers }, { cookie }))).toContain(reason)
  })

  it('is refused where there are several tickets', () => {
    expect(reasonOf(() => readCredential({ headers: {}, url: '/?ticket=a&ticket=b' }))).toContain('several tickets')
  })

  it('is read or refused, whatever comes', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.constantFrom('Bearer a', 'Basic YTpi', 'session=a'),
    )
    const headers = fc.record(
      { authorization: text, cookie: text, 'sec-websocket-protocol': text, origin: text },
      { requiredKeys: [] },
    )
    fc.assert(
      fc.property(headers, text, (given, url) => {
        expect(reasonOf(() => readCredential({ headers: given, url }, { cookie }) ?? null)).toMatch(
          /^(null|\{"kind"|identity-refused|origin-refused)/,
        )
      }),
    )
  })
})

describe('the credential of a CONNECT', () => {
  it('is user name and password', () => {
    expect(mqttCredential('alice', Buffer.from('ß'))).toEqual({ kind: 'password', user: 'alice', password: 'ß' })
    expect(mqttCredential('alice', undefined)).toEqual({ kind: 'password', user: 'alice', password: '' })
    expect(mqttCredential(undefined, undefined)).toBeUndefined()
  })

  it.each([
    [undefined, Buffer.from('x')],
    ['', undefined],
    ['a\nb', Buffer.from('x')],
    ['a', Buffer.from([0xc3, 0x28])],
  ])('is refused where it is %j and %j', (user, password) => {
    expect(reasonOf(() => mqttCredential(user, password))).toContain('identity-refused')
  })
})

describe('the headers for the webhook', () => {
  it('are those of the configuration, and a cookie only of a page', () => {
    const headers = { 'x-api-key': 'k', cookie: 'a=1', authorization: 'Basic x' }
    expect(forwardedHeaders(headers, ['X-API-Key', 'Cookie', 'constructor'])).toEqual({ 'x-api-key': 'k' })
    expect(forwardedHeaders({ ...headers, origin }, ['cookie'])).toEqual({ cookie: 'a=1' })
  })
})
