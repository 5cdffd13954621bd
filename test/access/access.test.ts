import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import bcrypt from 'bcrypt'
import { SignJWT } from 'jose'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Access, openAccess } from '../../src/access/access.js'
import type { AuthenticationRequest } from '../../src/access/authenticator.js'
import type { Credential } from '../../src/access/credentials.js'
import { onExpiry } from '../../src/access/expiry.js'
import { GatewayError } from '../../src/base/errors.js'
import { anonymous, identityOf } from '../../src/base/identity.js'
import { loadConfig } from '../../src/config/load.js'
import { MemoryState } from '../../src/storage/memory-state.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-access-'))
const log = pino({ level: 'silent' })
const secret = '0123456789abcdef0123456789abcdef'

writeFileSync(join(directory, 'users'), `alice:${bcrypt.hashSync('right', 4)}\n`)
writeFileSync(join(directory, 'ca.pem'), '')

/** A web service that knows bob, and whoever has the token `opaque`; and lets in who presents nothing from 192.0.2.7. */
const asked: Record<string, unknown>[] = []
const service = http.createServer(async (request, response) => {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  const question = JSON.parse(Buffer.concat(chunks).toString())
  asked.push(question)
  if (question.user === 'bob' && question.password === 'right') response.end('{"allow":true,"user":"bob"}')
  else if (question.token === 'opaque') response.end('{"allow":true,"user":"opaque"}')
  else response.end(JSON.stringify({ allow: question.user === undefined && question.address === '192.0.2.7' }))
})
beforeAll(async () => {
  await once(service.listen(0, '127.0.0.1'), 'listening')
})
afterAll(() => {
  service.closeAllConnections()
  service.close()
  rmSync(directory, { recursive: true })
})

const opened: Access[] = []
afterEach(async () => {
  for (const access of opened.splice(0)) await access.close()
  asked.splice(0)
})

const parts = {
  htpasswd: 'htpasswd: users',
  jwt: `jwt: {secret: ${secret}}`,
  certificates: 'clientCertificates: {ca: ca.pem}',
  webhook: () => `webhook: {url: 'http://127.0.0.1:${(service.address() as AddressInfo).port}/'}`,
}

async function open(access: string | undefined, more = ''): Promise<Access> {
  writeFileSync(join(directory, 'mqway.yaml'), `${access === undefined ? '' : `access: {${access}}`}\n${more}`)
  const { config } = loadConfig({ argv: [], env: {}, cwd: directory })
  const one = await openAccess(config, directory, log, new MemoryState())
  opened.push(one)
  return one
}

/** Who it is, or why not. */
async function who(access: Access, credential: Credential | undefined, address = '192.0.2.1'): Promise<string> {
  const attempt: AuthenticationRequest = { credential, transport: 'mqtt', address }
  try {
    const { user, source } = (await access.authenticator?.authenticate(attempt)) ?? { source: 'no authenticator' }
    return `${user ?? 'somebody'} (${source})`
  } catch (error) {
    return error instanceof GatewayError ? error.text : String(error)
  }
}

const password = (user: string, text: string): Credential => ({ kind: 'password', user, password: text })
const sign = (payload: Record<string, unknown> = {}): Promise<string> =>
  new SignJWT({ sub: 'tina', exp: Math.floor(Date.now() / 1000) + 3600, ...payload })
    .setProtectedHeader({ alg: 'HS256' })
    .sign(Buffer.from(secret))
const certificate = { user: 'carl', problem: undefined, expires: Date.now() + 60_000 }

describe('without access:', () => {
  it('nobody is asked, and everybody may do everything', async () => {
    const access = await open(undefined)
    expect(access.authenticator).toBeUndefined()
    expect(access.rules.for(anonymous).maySubscribe('$SYS/#')).toBe(true)
    await expect(access.tickets.issue(identityOf('alice', 'token'))).rejects.toThrow('Too many tickets')
  })
})

describe('who somebody is', () => {
  it('is said by the one that the credential is for', async () => {
    const access = await open([parts.htpasswd, parts.jwt, parts.certificates, parts.webhook()].join(', '))
    const token = await sign()
    expect(await who(access, password('alice', 'right'))).toBe('alice (password)')
    expect(await who(access, password('bob', 'right'))).toBe('bob (webhook)')
    expect(await who(access, password('whatever', token))).toBe('tina (token)')
    expect(await who(access, { kind: 'token', token })).toBe('tina (token)')
    expect(await who(access, { kind: 'certificate', certificate })).toBe('carl (certificate)')
    expect(await who(access, undefined, '192.0.2.7')).toBe('somebody (webhook)')
    const late = await sign({ exp: Math.floor(Date.now() / 1000) - 5 })
    expect(await who(access, { kind: 'token', token: late })).toBe('tina (token)')
    const { ticket } = await access.tickets.issue(identityOf('tina', 'token'))
    expect(await who(access, { kind: 'ticket', ticket })).toBe('tina (ticket)')
    expect(await who(access, { kind: 'ticket', ticket })).toContain('the ticket was used already')
  })

  it('is nobody where it is wrong, whatever else could let them in', async () => {
    const all = [parts.htpasswd, parts.jwt, parts.certificates, 'rules: [{to: anonymous, publish: [a]}]'].join(', ')
    const access = await open(all)
    expect(await who(access, undefined)).toBe('somebody (none)')
    const wrong = 'The credentials are not accepted: '
    expect(await who(access, password('alice', 'wrong'))).toBe(`${wrong}wrong user name or password`)
    expect(await who(access, password('nobody', 'right'))).toBe(`${wrong}wrong user name or password`)
    expect(await who(access, password('alice', 'eyJhbGci'))).toBe(`${wrong}wrong user name or password`)
    expect(await who(access, password('alice', 'eyJhIjoxfQ.YQ.YQ'))).toContain(wrong)
    expect(await who(access, { kind: 'token', token: 'x' })).toBe(`${wrong}this is not a token`)
    expect(await who(access, { kind: 'ticket', ticket: 'x' })).toContain(wrong)
    const bad = { ...certificate, problem: 'CERT_REVOKED' }
    expect(await who(access, { kind: 'certificate', certificate: bad })).toBe(
      `${wrong}the client certificate is not valid (CERT_REVOKED)`,
    )
    expect(await who(access, { kind: 'certificate', certificate: { ...certificate, user: undefined } })).toContain(
      'no user name',
    )
    expect(await who(access, { kind: 'certificate', certificate: { ...certificate, user: 'a\nb' } })).toContain(
      'no user name',
    )
    expect(await who(access, { kind: 'certificate', certificate: { ...certificate, expires: 1 } })).toContain(
      'have expired',
    )
  })

  it('is not asked of the webhook where the password file knows the user', async () => {
    const access = await open([parts.htpasswd, parts.webhook()].join(', '))
    expect(await who(access, password('alice', 'wrong'))).toContain('wrong user name or password')
    expect(asked).toEqual([])
    expect(await who(access, password('bob', 'wrong'))).toBe('The credentials are not accepted')
    expect(asked).toEqual([{ transport: 'mqtt', address: '192.0.2.1', user: 'bob', password: 'wrong' }])
    expect(await who(access, { kind: 'token', token: 'opaque' })).toBe('opaque (webhook)')
  })

  it('is refused where nothing is there to judge it', async () => {
    const tokens = await open(parts.jwt)
    expect(await who(tokens, password('alice', 'right'))).toContain('passwords are not accepted here')
    expect(await who(tokens, { kind: 'certificate', certificate })).toContain(
      'client certificates are not accepted here',
    )
    expect(await who(await open(parts.htpasswd), { kind: 'token', token: await sign() })).toContain(
      'tokens are not accepted here',
    )
  })

  it('slows down who tries passwords of users that nobody knows, also past the webhook', async () => {
    for (const access of [await open(parts.htpasswd), await open([parts.htpasswd, parts.webhook()].join(', '))]) {
      for (let attempt = 0; attempt < 10; attempt++) {
        expect(await who(access, password(`user ${attempt}`, 'x'))).toContain('not accepted')
      }
      expect(await who(access, password('alice', 'right'))).toContain('Too many passwords')
      expect(await who(access, password('alice', 'right'), '192.0.2.2')).toBe('alice (password)')
    }
  })
})

describe('somebody who presents nothing', () => {
  it.each([
    [parts.htpasswd, '', 'Authentication required'],
    [parts.htpasswd, 'anonymous: true', 'somebody (none)'],
    [`${parts.htpasswd}, rules: [{to: authenticated, publish: [a]}]`, '', 'Authentication required'],
    [`${parts.htpasswd}, rules: [{to: anonymous, publish: [a]}]`, '', 'somebody (none)'],
  ])('with %s %s: %s', async (access, more, expected) => {
    expect(await who(await open(access, more), undefined)).toBe(expected)
  })

  it('is refused where a name is required', async () => {
    const access = await open(parts.htpasswd, 'anonymous: true')
    const webhook = await open(parts.webhook())
    for (const { authenticator } of [access, webhook]) {
      const attempt = { credential: undefined, transport: 'websocket', address: '192.0.2.7' } as const
      await expect(authenticator?.authenticate(attempt, { requireUser: true })).rejects.toMatchObject({
        reason: 'identity-required',
        httpStatus: 401,
      })
    }
  })

  it('is told how to say who they are', async () => {
    expect((await open(parts.htpasswd)).authenticator?.challenge).toBe('Basic realm="mqway", charset="UTF-8"')
    expect((await open(parts.jwt)).authenticator?.challenge).toBe('Bearer realm="mqway"')
    expect((await open(`${parts.jwt}, ${parts.htpasswd}`)).authenticator?.challenge).toBe(
      'Bearer realm="mqway", Basic realm="mqway", charset="UTF-8"',
    )
    expect((await open(parts.certificates)).authenticator?.challenge).toBe('')
  })
})

describe('files', () => {
  it('are read again when that is asked for, and a broken one lets nobody in or out', async () => {
    const access = await open(parts.htpasswd)
    const hash = bcrypt.hashSync('new', 4)
    writeFileSync(join(directory, 'users'), `zoe:${hash}\n`)
    await access.reload()
    expect(await who(access, password('zoe', 'new'))).toBe('zoe (password)')
    expect(await who(access, password('alice', 'right'))).toContain('wrong')
    writeFileSync(join(directory, 'users'), 'broken')
    await access.reload()
    expect(await who(access, password('zoe', 'new'))).toBe('zoe (password)')
    writeFileSync(join(directory, 'users'), `alice:${bcrypt.hashSync('right', 4)}\n`)
  })

  it('have to be right in the beginning', async () => {
    writeFileSync(join(directory, 'broken'), 'alice:secret\n')
    await expect(open('htpasswd: broken')).rejects.toThrow(
      /^the password file .*broken: line 1 must have a bcrypt hash/,
    )
  })
})

describe('the end of an identity', () => {
  it('is told of when it comes', async () => {
    await new Promise<void>(resolve => onExpiry(Date.now() + 5, resolve))
    await new Promise<void>(resolve => onExpiry(Date.now() - 5, resolve))
  })

  it('is not told of when it is far away, never comes, or was taken back', async () => {
    let told = 0
    const count = () => (told += 1)
    const takeBacks = [
      onExpiry(Date.now() + 2 ** 40, count),
      onExpiry(undefined, count),
      onExpiry(Date.now() + 1, count),
    ]
    takeBacks[2]?.()
    await new Promise<void>(resolve => onExpiry(Date.now() + 20, resolve))
    takeBacks[0]?.()
    expect(told).toBe(0)
  })
})
