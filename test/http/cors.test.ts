import { afterEach, describe, expect, it } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'

let gateway: TestGateway
afterEach(() => gateway.close())

const secret = 'a secret of more than thirty-two bytes'
const listed = 'https://app.example'
const withCookies = { access: { jwt: { secret, cookie: 'session' } } }

const start = async (config: ConfigInput, origins = ['same-origin', listed]): Promise<void> => {
  gateway = await startTestGateway({ compat: { couchdb: {} }, ...config, push: { origins } })
}

/** The status of an answer, with what it tells the browser of a page of `origin`. */
const ask = async (path: string, method = 'GET', origin = listed) => {
  const { status, headers } = await fetch(gateway.urls.http + path, { method, headers: { origin } })
  const [allowed, credentials, vary] = ['access-control-allow-origin', 'access-control-allow-credentials', 'vary'].map(
    name => headers.get(name),
  )
  return { status, allowed, credentials, vary: vary?.split(', ').includes('origin') }
}

describe('a page of another origin', () => {
  it.each([
    ['/v1/events?topic=a', 'GET', 401],
    ['/v1/poll?topic=a', 'GET', 401],
    ['/v1/publish', 'POST', 401],
    ['/v1/publish', 'OPTIONS', 204],
    ['/v1/publish', 'GET', 405],
    ['/v1/events', 'DELETE', 405],
    ['/v1/nothing', 'GET', 404],
    ['/v1/nothing/at/all', 'PUT', 404],
    ['/pere/feed/a', 'GET', 401],
    ['/pere/feed/a', 'POST', 405],
    ['/pere/nothing', 'GET', 404],
    ['/couchdb/a/_changes', 'GET', 401],
    ['/couchdb/a', 'PUT', 405],
    ['/couchdb/a/b/c', 'GET', 401],
  ])('%s (%s) is told that it may read the %i, with cookies', async (path, method, status) => {
    await start(withCookies)
    expect(await ask(path, method)).toEqual({ status, allowed: listed, credentials: 'true', vary: true })
    expect(await ask(path, method, 'https://other.example')).toMatchObject({
      allowed: null,
      credentials: null,
      vary: true,
    })
  })

  it.each<[string, ConfigInput, string[] | undefined]>([
    ['where no cookie counts', { access: { jwt: { secret } } }, undefined],
    ['where every page may ask', withCookies, ['*']],
    ['where a pattern is for every page', withCookies, ['/./']],
  ])('may not have its browser add cookies %s', async (_name, config, origins) => {
    await start(config, origins)
    expect(await ask('/v1/publish', 'OPTIONS')).toEqual({ status: 204, allowed: listed, credentials: null, vary: true })
  })

  it('may have its browser add the cookies that a webhook sees', async () => {
    await start({ access: { webhook: { url: 'http://127.0.0.1:9/', headers: ['Cookie'] } } })
    expect(await ask('/v1/publish', 'OPTIONS')).toMatchObject({ status: 204, credentials: 'true' })
  })
})
