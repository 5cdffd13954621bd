import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, describe, expect, it } from 'vitest'
import { openAccess } from '../../src/access/access.js'
import type { Identity } from '../../src/base/identity.js'
import { loadConfig } from '../../src/config/load.js'
import { MemoryState } from '../../src/storage/memory-state.js'
import { mqway } from '../helpers/program.js'

const directory = mkdtempSync(join(tmpdir(), 'mqway-token-'))
afterAll(() => rmSync(directory, { recursive: true }))

const secret = '0123456789abcdef0123456789abcdef'

function configured(yaml: string): void {
  writeFileSync(join(directory, 'mqway.yaml'), yaml)
}

async function token(...args: string[]): Promise<{ code: number | null; token: string; errors: string }> {
  const running = mqway(['token', ...args], directory)
  const line = running.line().catch(() => '')
  return { code: await running.exited(), token: await line, errors: running.errors() }
}

/** Who the gateway takes somebody with this token for, with the configuration that it was made with. */
async function identityOf(text: string, file?: string): Promise<Identity | undefined> {
  const argv = file === undefined ? [] : ['--config', file]
  const { config } = loadConfig({ argv, env: {}, cwd: directory })
  const access = await openAccess(config, directory, pino({ level: 'silent' }), new MemoryState())
  const credential = { kind: 'token', token: text } as const
  try {
    return await access.authenticator?.identify({ credential, transport: 'http', address: '192.0.2.1' })
  } finally {
    await access.close()
  }
}

describe('mqway token', () => {
  it('prints a token that the gateway accepts, and nothing else', async () => {
    configured(`access: {jwt: {secret: ${secret}, issuer: [me, you], audience: mqway}}`)
    const made = await token(
      '--user',
      'alice',
      '--publish',
      'a/%u',
      '--publish',
      'b/#',
      '--subscribe=c',
      '--role',
      'x',
      '--expires',
      '2h',
    )
    expect(made).toMatchObject({ code: 0, errors: '' })
    const identity = await identityOf(made.token)
    expect(identity).toMatchObject({
      user: 'alice',
      roles: ['x'],
      rules: { publish: ['a/%u', 'b/#'], subscribe: ['c'] },
      claims: { iss: 'me', aud: 'mqway' },
    })
    const left = Number(identity?.claims['exp']) * 1000 - Date.now()
    expect(left / 60_000).toBeGreaterThan(119)
    expect(left / 60_000).toBeLessThanOrEqual(120)
  })

  it('leaves what the user may do to the rules where no filters are given', async () => {
    writeFileSync(join(directory, 'secret'), `${secret}${secret}\n`)
    writeFileSync(
      join(directory, 'other.yaml'),
      'access: {jwt: {secretFile: secret, algorithms: [HS512], userClaim: name, rolesClaim: realm.roles}}',
    )
    const made = await token('--config', 'other.yaml', '--user', 'bob', '--role', 'x')
    const identity = await identityOf(made.token, 'other.yaml')
    expect(identity).toMatchObject({ user: 'bob', roles: ['x'], rules: undefined, claims: { name: 'bob' } })
    expect((identity?.expires ?? 0) - Date.now()).toBeGreaterThan(3_500_000)
  })

  it('may be for years', async () => {
    configured(`access: {jwt: {secret: ${secret}}}`)
    const made = await token('--user', 'sensor', '--expires', '3650d')
    expect(((await identityOf(made.token))?.expires ?? 0) - Date.now()).toBeGreaterThan(3649 * 86_400_000)
  })

  it.each([
    [[], '--user: is missing; it is the user of the token'],
    [['--user', ''], '--user: "" must have 1 to 255 bytes, and no control characters'],
    [['--user', 'a\nb'], '--user: "a\\nb" must have 1 to 255 bytes, and no control characters'],
    [['--user'], '--user: needs a value'],
    [['--user', '--role', 'x'], '--user: needs a value'],
    [['--usr', 'a'], '--usr: is not an option; did you mean --user?'],
    [['alice'], 'alice: is not expected here; options begin with --'],
    [
      ['--user', 'a', '--publish', 'news/#/x'],
      '--publish: "news/#/x" must have # in the last level only, as in news/#',
    ],
    [
      ['--user', 'a', '--subscribe', '%x'],
      '--subscribe: "%x" must have no other placeholders than %u (user) and %c (client id); a % itself is %%',
    ],
    [['--user', 'a', '--expires', '1'], '--expires: "1" must be a time such as 15m, 1h or 30d, from 1s to 3650d'],
    [['--user', 'a', '--expires', '10ms'], '--expires: "10ms" must be a time such as'],
    [['--user', 'a', '--expires', '3651d'], '--expires: "3651d" must be a time such as'],
  ])('refuses %j in one line, with exit code 2', async (args, message) => {
    configured(`access: {jwt: {secret: ${secret}}}`)
    const { code, errors, token: printed } = await token(...args)
    expect([code, printed]).toEqual([2, ''])
    expect(errors).toContain(`mqway token: ${message}`)
    expect(errors.trimEnd().split('\n')).toHaveLength(1)
  })

  it.each([
    ['', "mqway token: mqway.yaml needs access.jwt.secret or access.jwt.secretFile; other keys are the issuer's\n"],
    ['access: {jwt: {jwks: "https://id.example/keys"}}', 'mqway token: mqway.yaml needs access.jwt.secret or'],
    [
      'access: {jwt: {secretFile: short}}',
      'mqway token: access.jwt.secretFile: must have at least 32 bytes for HS256; it has 5\n',
    ],
    [
      'access: {jwt: {secret: short}}',
      'mqway.yaml:1: access.jwt.secret: [redacted] must have at least 32 bytes for HS256; it has 5\n',
    ],
  ])('needs a secret, which %j has not', async (yaml, message) => {
    writeFileSync(join(directory, 'short'), 'short')
    configured(yaml)
    const { code, errors } = await token('--user', 'alice')
    expect(code).toBe(2)
    expect(errors).toContain(message)
  })
})
