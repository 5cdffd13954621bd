import { createHmac, createPublicKey, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose'
import { pino } from 'pino'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { openTokenKeys, readSecret } from '../../src/access/token-keys.js'
import { Tokens } from '../../src/access/tokens.js'
import { GatewayError } from '../../src/base/errors.js'
import { access, type JwtConfig } from '../../src/config/access.js'
import { eventually } from '../helpers/wait.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-tokens-'))
afterAll(() => rmSync(directory, { recursive: true }))
const log = pino({ level: 'silent' })

const secret = '0123456789abcdef0123456789abcdef'
/** In seconds. */
const now = 1_700_000_000

type JwtInput = Record<string, unknown>

function configOf(jwt: JwtInput): JwtConfig {
  const { jwt: config } = access.parse({ jwt })
  if (config === undefined) throw new Error('there is no jwt')
  return config
}

async function tokensOf(jwt: JwtInput = { secret }) {
  const config = configOf(jwt)
  const keys = await openTokenKeys(config, directory, log)
  return { keys, tokens: new Tokens({ config, keys, now: () => now * 1000 }) }
}

const claims = { sub: 'alice', exp: now + 60 }

function sign(
  payload: JWTPayload,
  key: Parameters<SignJWT['sign']>[0] = Buffer.from(secret),
  header = {},
): Promise<string> {
  return new SignJWT(payload).setProtectedHeader({ alg: 'HS256', ...header }).sign(key)
}

const base64url = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A token made by hand, as an attacker makes one. */
function forge(header: unknown, payload: unknown, key?: string | Buffer): string {
  const text = `${base64url(header)}.${base64url(payload)}`
  return `${text}.${key === undefined ? '' : createHmac('sha256', key).update(text).digest('base64url')}`
}

async function refusal(verified: Promise<unknown>): Promise<string> {
  const error = await verified.then(
    () => 'accepted',
    (reason: unknown) => reason,
  )
  if (!(error instanceof GatewayError)) return String(error)
  return error.reason === 'identity-refused'
    ? error.text.replace('The credentials are not accepted: ', '')
    : error.reason
}

const rsa = await generateKeyPair('RS256', { extractable: true })
const ec = await generateKeyPair('ES256', { extractable: true })
const rsaJwk: JWK = { ...(await exportJWK(rsa.publicKey)), kid: 'one' }
const ecJwk: JWK = { ...(await exportJWK(ec.publicKey)), kid: 'two' }

/** An issuer's web server. */
async function issuer(answer: { status?: number; keys: JWK[]; location?: string }) {
  let requests = 0
  const server = http.createServer((_request, response) => {
    requests += 1
    response.writeHead(answer.status ?? 200, answer.location === undefined ? {} : { location: answer.location })
    response.end(JSON.stringify({ keys: answer.keys }))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}/keys`, requests: () => requests, close: () => server.close() }
}

describe('a token', () => {
  it('says who it is, until when, and what they may do', async () => {
    const { tokens } = await tokensOf()
    const mqtt = { publish: ['out/%u'], subscribe: ['in/#'] }
    expect(await tokens.verify(await sign({ ...claims, roles: ['a', 'b'], mqtt, department: 'sales' }))).toEqual({
      user: 'alice',
      source: 'token',
      roles: ['a', 'b'],
      rules: mqtt,
      claims: { ...claims, roles: ['a', 'b'], mqtt, department: 'sales' },
      expires: (now + 60 + 10) * 1000,
    })
    expect(await tokens.verify(await sign(claims))).toMatchObject({ roles: [], rules: undefined })
  })

  it('has its user and roles where the configuration says', async () => {
    const { tokens } = await tokensOf({ secret, userClaim: 'https://a.example/name', rolesClaim: 'realm_access.roles' })
    const payload = { exp: now + 1, 'https://a.example/name': 'bob', realm_access: { roles: ['editor'] } }
    expect(await tokens.verify(await sign(payload))).toMatchObject({ user: 'bob', roles: ['editor'] })
    const inherited = await tokensOf({ secret, userClaim: 'constructor.name' })
    expect(await refusal(inherited.tokens.verify(await sign(claims)))).toContain('constructor.name must be a text')
  })

  it.each<[string, JWTPayload]>([
    ['the token does not say when it expires', { sub: 'alice' }],
    ['the token has expired', { ...claims, exp: now - 11 }],
    ['the token is not valid yet', { ...claims, nbf: now + 11 }],
    ["the token's sub must be a text of 1 to 255 bytes", { exp: now + 1 }],
    ["the token's sub must be a text of 1 to 255 bytes", { ...claims, sub: '' }],
    ["the token's sub must be a text of 1 to 255 bytes", { ...claims, sub: 'a\r\nX-Admin: yes' }],
    ["the token's sub must be a text of 1 to 255 bytes", { ...claims, sub: 'x'.repeat(256) }],
    ["the token's roles must be a text, or a list", { ...claims, roles: { admin: true } }],
    ["the token's roles must be a text, or a list", { ...claims, roles: [1] }],
    [
      "the token's mqtt is not right: publish.0: must have # in the last level only",
      { ...claims, mqtt: { publish: ['#/a'] } },
    ],
    [
      "the token's mqtt is not right: subscribe.0: must have no other placeholders",
      { ...claims, mqtt: { subscribe: ['%x'] } },
    ],
    ["the token's mqtt is not right: ", { ...claims, mqtt: { subscibe: [] } }],
    ["the token's mqtt is not right: ", { ...claims, mqtt: null }],
    [
      "the token's mqtt is not right: publish: must have at most 100 filters",
      { ...claims, mqtt: { publish: Array(101).fill('a') } },
    ],
  ])('is refused: %s', async (reason, payload) => {
    const { tokens } = await tokensOf()
    expect(await refusal(tokens.verify(await sign(payload)))).toContain(reason)
  })

  it('may be off by as much as is tolerated, and no more', async () => {
    const { tokens } = await tokensOf({ secret, clockTolerance: '1m' })
    expect(await refusal(tokens.verify(await sign({ sub: 'a', exp: now - 59, nbf: now + 60 })))).toBe('accepted')
    expect(await refusal(tokens.verify(await sign({ sub: 'a', exp: now - 60 })))).toBe('the token has expired')
  })

  it('is of the issuer and for the audience that are asked for', async () => {
    const { tokens } = await tokensOf({ secret, issuer: 'id', audience: ['mqway', 'other'] })
    const verify = async (payload: JWTPayload) => refusal(tokens.verify(await sign({ ...claims, ...payload })))
    expect(await verify({ iss: 'id', aud: ['x', 'other'] })).toBe('accepted')
    expect(await verify({ iss: 'evil', aud: 'mqway' })).toBe('the token is of another issuer')
    expect(await verify({ aud: 'mqway' })).toBe('the token is of another issuer')
    expect(await verify({ iss: 'id', aud: 'x' })).toBe('the token is for another audience')
    expect(await verify({ iss: 'id' })).toBe('the token is for another audience')
  })

  it('is refused when it is none, whatever it is', async () => {
    const { tokens } = await tokensOf()
    for (const text of ['', 'x', '..', 'a.b.c', '{}', `${base64url({ alg: 'HS256' })}.x.y`, 'é.é.é']) {
      expect([text, await refusal(tokens.verify(text))]).not.toEqual([text, 'accepted'])
    }
    expect(await refusal(tokens.verify(`${await sign(claims)}${'x'.repeat(20_000)}`))).toContain('16384 characters')
    await fc.assert(
      fc.asyncProperty(fc.string({ maxLength: 60 }), fc.json(), async (text, json) => {
        for (const token of [text, forge(JSON.parse(json), claims, secret), forge({ alg: 'HS256' }, text, 'x')]) {
          await expect(tokens.verify(token)).rejects.toMatchObject({ reason: 'identity-refused' })
        }
      }),
    )
  })
})

describe('attacks with tokens', () => {
  it.each(['none', 'None', 'nOnE', 'NONE', ''])('the algorithm %j is never accepted', async alg => {
    const { tokens } = await tokensOf()
    expect(await refusal(tokens.verify(forge({ alg }, claims)))).not.toBe('accepted')
    const withKeys = await tokensOf({ jwks: (await issuerFile([rsaJwk])).name })
    expect(await refusal(withKeys.tokens.verify(forge({ alg, kid: 'one' }, claims)))).not.toBe('accepted')
    await withKeys.keys.close()
  })

  it('a public key is no secret', async () => {
    const { tokens, keys } = await tokensOf({ jwks: (await issuerFile([rsaJwk])).name })
    const key: KeyObject = createPublicKey({ key: rsaJwk as Record<string, string>, format: 'jwk' })
    const guesses = [
      key.export({ type: 'spki', format: 'pem' }),
      key.export({ type: 'pkcs1', format: 'pem' }),
      key.export({ type: 'spki', format: 'der' }),
      JSON.stringify(rsaJwk),
      rsaJwk.n ?? '',
    ]
    for (const guess of guesses) {
      expect(await refusal(tokens.verify(forge({ alg: 'HS256', kid: 'one' }, claims, guess)))).toBe(
        'the token is signed with an algorithm that is not accepted here',
      )
    }
    await keys.close()
  })

  it('a secret among the public keys is not used', async () => {
    const k = Buffer.from(secret).toString('base64url')
    const { tokens, keys } = await tokensOf({ jwks: (await issuerFile([{ kty: 'oct', k, kid: 'one' }])).name })
    expect(await refusal(tokens.verify(await sign(claims, undefined, { kid: 'one' })))).toContain('algorithm')
    await keys.close()
  })

  it('a token cannot bring its own key', async () => {
    const own = await issuer({ keys: [ecJwk] })
    const { tokens, keys } = await tokensOf({ jwks: (await issuerFile([rsaJwk])).name })
    for (const header of [{ jwk: ecJwk }, { jku: own.url, kid: 'two' }, { x5u: own.url }, { kid: '../../dev/null' }]) {
      const token = await sign(claims, ec.privateKey, { alg: 'ES256', ...header })
      expect(await refusal(tokens.verify(token))).toContain('a key that the issuer does not have')
    }
    expect(own.requests()).toBe(0)
    own.close()
    await keys.close()
  })

  it('what it is signed for cannot be changed', async () => {
    const { tokens } = await tokensOf()
    const [header = '', , signature = ''] = (await sign(claims)).split('.')
    const changed = `${header}.${base64url({ ...claims, sub: 'admin' })}.${signature}`
    expect(await refusal(tokens.verify(changed))).toBe('the signature of the token is wrong')
    const other = await sign(claims, Buffer.from('another secret of thirty-two bytes'))
    expect(await refusal(tokens.verify(other))).toBe('the signature of the token is wrong')
  })

  it('an extension that is critical and not known is refused', async () => {
    const { tokens } = await tokensOf()
    expect(await refusal(tokens.verify(forge({ alg: 'HS256', crit: ['x'], x: 1 }, claims, secret)))).toBe(
      'the token cannot be read',
    )
  })
})

let written = 0
async function issuerFile(keys: JWK[]) {
  written += 1
  const name = `keys-${written}.json`
  const write = (next: JWK[]) => writeFileSync(join(directory, name), JSON.stringify({ keys: next }))
  write(keys)
  return { name, write }
}

const rsaToken = await sign(claims, rsa.privateKey, { alg: 'RS256', kid: 'one' })
const ecToken = await sign(claims, ec.privateKey, { alg: 'ES256', kid: 'two' })

describe('the keys of tokens', () => {
  it('are fetched once, and once more when a token names another one', async () => {
    const answer = { keys: [rsaJwk] }
    const server = await issuer(answer)
    const { tokens } = await tokensOf({ jwks: server.url })
    expect(server.requests()).toBe(0)
    expect(await Promise.all([1, 2, 3].map(() => refusal(tokens.verify(rsaToken))))).toEqual(Array(3).fill('accepted'))
    expect(server.requests()).toBe(1)
    answer.keys = [ecJwk]
    // Anybody can name keys that there are not: they are not fetched for each of them.
    for (let count = 0; count < 5; count++) expect(await refusal(tokens.verify(ecToken))).toContain('does not have')
    expect(server.requests()).toBe(1)
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 31_000 })
    expect(await refusal(tokens.verify(ecToken))).toBe('accepted')
    vi.useRealTimers()
    expect(server.requests()).toBe(2)
    server.close()
  })

  it.each([
    ['is away', undefined],
    ['fails', { status: 500, keys: [rsaJwk] }],
    ['redirects', { status: 302, keys: [rsaJwk], location: 'http://127.0.0.1:1/' }],
  ])('where the issuer %s, nobody is let in and it is not the token’s fault', async (_case, answer) => {
    const server = await issuer(answer ?? { keys: [] })
    if (answer === undefined) server.close()
    const { tokens } = await tokensOf({ jwks: server.url })
    expect(await refusal(tokens.verify(rsaToken))).toBe('identity-unavailable')
    server.close()
  })

  it('in a file are read again when they change', async () => {
    const file = await issuerFile([rsaJwk])
    const { tokens, keys } = await tokensOf({ jwks: file.name })
    expect(await refusal(tokens.verify(rsaToken))).toBe('accepted')
    file.write([ecJwk])
    await keys.reload()
    expect(await refusal(tokens.verify(rsaToken))).toContain('does not have')
    expect(await refusal(tokens.verify(ecToken))).toBe('accepted')
    await keys.close()
  })

  it('are a secret in a file, without the end of its line', async () => {
    const path = join(directory, 'secret')
    writeFileSync(path, `${secret}\n`)
    const { tokens, keys } = await tokensOf({ secretFile: 'secret' })
    const before = await sign(claims)
    expect(await refusal(tokens.verify(before))).toBe('accepted')
    const next = 'fedcba9876543210fedcba9876543210'
    writeFileSync(path, next)
    await keys.reload()
    expect(await refusal(tokens.verify(before))).toContain('signature')
    expect(await refusal(tokens.verify(await sign(claims, Buffer.from(next))))).toBe('accepted')
    writeFileSync(path, 'short')
    await keys.reload()
    expect(await refusal(tokens.verify(await sign(claims, Buffer.from(next))))).toBe('accepted')
    await keys.close()
    await expect(openTokenKeys(configOf({ secretFile: 'secret' }), directory, log)).rejects.toThrow(
      /secret: must have at least 32 bytes for HS256; it has 5$/,
    )
  })

  it('are watched', async () => {
    const file = await issuerFile([ecJwk])
    const { tokens, keys } = await tokensOf({ jwks: file.name })
    file.write([rsaJwk])
    await eventually(async () => (await refusal(tokens.verify(rsaToken))) === 'accepted')
    await keys.close()
  })

  it('have to be keys', async () => {
    writeFileSync(join(directory, 'no-keys'), '{"keys": 1}')
    await expect(openTokenKeys(configOf({ jwks: 'no-keys' }), directory, log)).rejects.toThrow(
      /the file of keys .*no-keys: /,
    )
  })

  it('can be had for signing where they are a secret', async () => {
    writeFileSync(join(directory, 'to-sign'), `${secret}\r\n`)
    expect(await readSecret(configOf({ secret }), directory)).toEqual(Buffer.from(secret))
    expect(await readSecret(configOf({ secretFile: 'to-sign' }), directory)).toEqual(Buffer.from(secret))
    expect(await readSecret(configOf({ jwks: 'x' }), directory)).toBeUndefined()
    await expect(readSecret(configOf({ secretFile: 'nowhere' }), directory)).rejects.toThrow('ENOENT')
  })
})
