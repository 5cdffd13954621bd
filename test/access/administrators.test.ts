import { afterAll, describe, expect, it, onTestFinished } from 'vitest'
import { compileAdministrators } from '../../src/access/administrators.js'
import type { Client } from '../../src/access/client-address.js'
import { anonymous, identityOf } from '../../src/base/identity.js'
import { type ConfigInput, configSchema } from '../../src/config/schema.js'
import { Credentials } from '../broker/embedded/access-rig.js'
import { startTestGateway } from '../helpers/gateway.js'
import { basic } from '../helpers/identities.js'

/*
 * Who may list and disconnect clients: by default nobody but this machine, and with access rules only users that one names.
 */

const from = (address: string, viaUnknownProxy = false): Client => ({
  ...{ address, viaUnknownProxy, port: 1, secure: false, host: 'localhost' },
})

describe('administrators', () => {
  it('are clients on this machine, where no others are served', () => {
    const require = compileAdministrators({ rules: { isAdmin: () => false }, isOpen: false })
    for (const address of ['127.0.0.1', '127.1.2.3', '::1', 'unix'])
      expect(() => require(from(address), anonymous)).not.toThrow()
    for (const client of [from('192.0.2.1'), from('10.0.0.1'), from('127.0.0.1', true), from('unix', true)])
      expect(() => require(client, anonymous)).toThrow('Only administrators may do this')
  })

  it('are only users of a rule, where the gateway is open to others', () => {
    const require = compileAdministrators({ rules: { isAdmin: ({ user }) => user === 'root' }, isOpen: true })
    expect(() => require(from('192.0.2.1'), identityOf('root', 'password'))).not.toThrow()
    expect(() => require(from('127.0.0.1'), identityOf('alice', 'password'))).toThrow('admin: true')
    expect(() => require(from('127.0.0.1'), anonymous)).toThrow('admin: true')
  })
})

const credentials = new Credentials({ cost: 4 })
afterAll(() => credentials.remove())

async function ask(config: ConfigInput) {
  const gateway = await startTestGateway(config)
  onTestFinished(() => gateway.close())
  return async (login?: string, method = 'GET', more: Record<string, string> = {}) => {
    const headers = { ...(login === undefined ? {} : basic(login).headers), ...more }
    const url = `${gateway.urls.http}/v1/clients${method === 'GET' ? '' : '/x'}`
    const response = await fetch(url, { method, headers })
    const { reason } = (await response.json()) as { reason?: string }
    return [response.status, reason, response.headers.get('www-authenticate') !== null]
  }
}

describe('GET and DELETE of /v1/clients', () => {
  it('are for users with a rule that has admin: true', async () => {
    const get = await ask({
      access: {
        ...credentials.access,
        rules: [
          { to: 'anonymous', subscribe: ['news/#'] },
          { to: 'authenticated', publish: ['#'], subscribe: ['#'] },
          { to: { user: 'bob' }, admin: true },
        ],
      },
    })
    expect(await get()).toEqual([401, 'identity-required', true])
    expect(await get('alice:right')).toEqual([403, 'admin-required', false])
    expect(await get('bob:wrong')).toEqual([401, 'identity-refused', true])
    expect(await get('bob:right')).toEqual([200, undefined, false])
    expect(await get('bob:right', 'DELETE')).toEqual([404, undefined, false])
    expect(await get('alice:right', 'DELETE')).toEqual([403, 'admin-required', false])
    expect(await get(undefined, 'DELETE')).toEqual([401, 'identity-required', true])
  })

  it('are for nobody without such a rule, also on loopback', async () => {
    const withoutRules = await ask({ access: credentials.access })
    expect(await withoutRules('alice:right')).toEqual([403, 'admin-required', false])
    const open = await ask({ anonymous: true })
    expect(await open()).toEqual([403, 'admin-required', false])
    expect(await open(undefined, 'DELETE')).toEqual([403, 'admin-required', false])
  })

  it('are for this machine by default, but not through a proxy', async () => {
    const get = await ask({})
    expect(await get()).toEqual([200, undefined, false])
    expect(await get(undefined, 'GET', { 'x-forwarded-for': '192.0.2.1' })).toEqual([403, 'admin-required', false])
    const behind = await ask({ trustedProxies: ['loopback'] })
    expect(await behind(undefined, 'GET', { 'x-forwarded-for': '192.0.2.1' })).toEqual([403, 'admin-required', false])
  })

  it('are never given to anonymous clients', () => {
    const { success, error } = configSchema.safeParse({ access: { rules: [{ to: 'anonymous', admin: true }] } })
    expect([success, error?.issues]).toMatchObject([
      false,
      [{ path: ['access', 'rules', 0, 'admin'], message: expect.stringContaining('must not be given to anonymous') }],
    ])
  })
})
