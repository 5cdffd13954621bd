import { expect, test } from 'vitest'
import { effectOf, listChanges, withoutRestart } from '../../src/config/changes.js'
import { listOptions } from '../../src/config/options.js'
import { type Config, configSchema } from '../../src/config/schema.js'

function configOf(input: object): Config {
  return configSchema.parse({ mqtt: { port: 1883 }, mqtts: { port: 'off' }, ...input }) as Config
}

test('every option says whether it takes effect with a reload or with a restart', () => {
  const paths = listOptions().map(({ path }) => path)
  const isSection = (path: string) => paths.some(other => other.startsWith(`${path}.`))
  const options = paths.filter(path => !path.includes('[]') && !isSection(path))
  const missing = options.filter(path => effectOf(path) === undefined)
  expect(missing, 'add them to the table of src/config/changes.ts').toEqual([])
})

test('equal configurations have no changes', () => {
  expect(listChanges(configOf({}), configOf({}))).toEqual([])
})

test('a changed option is listed with its values in the syntax of a file, and with its effect', () => {
  const changes = listChanges(configOf({}), configOf({ http: { port: 8081 }, limits: { closeTimeout: '2s' } }))
  expect(changes).toEqual([
    { option: 'http.port', effect: 'restart', from: '8080', to: '8081' },
    { option: 'limits.closeTimeout', effect: 'reload', from: '5s', to: '2s' },
  ])
})

test('a changed secret is listed without its values', () => {
  const of = (secret: string) => configOf({ access: { jwt: { secret } } })
  const changes = listChanges(of('a'.repeat(40)), of('b'.repeat(40)))
  expect(changes).toEqual([{ option: 'access.jwt.secret', effect: 'reload' }])
})

test('a secret within a list is not shown', () => {
  const of = (password: string) =>
    configOf({ tunnels: [{ path: '/', broker: { url: 'mqtt://b', username: 'u', password } }] })
  expect(JSON.stringify(listChanges(of('first'), of('second')))).not.toMatch(/first|second/)
})

test('a list is one option', () => {
  const rules = (user: string) => configOf({ access: { rules: [{ to: { user }, publish: ['#'] }] } })
  expect(listChanges(rules('ann'), rules('bob')).map(({ option }) => option)).toEqual(['access.rules'])
})

test('access control cannot be added or removed without a restart', () => {
  const open = configOf({})
  const closed = configOf({ access: { htpasswd: 'users' } })
  for (const [from, to] of [
    [open, closed],
    [closed, open],
  ] as const) {
    expect(listChanges(from, to)).toMatchObject([{ option: 'access', effect: 'restart' }])
    expect(withoutRestart(from, to)).toEqual(from)
  }
})

test('push.topics take effect with a reload, unless bounds of their own change', () => {
  const of = (...topics: unknown[]) => configOf({ push: { topics } })
  const bounded = { filter: 'b/#', maxEvents: 10 }
  expect(listChanges(of('a/#'), of('c/#'))[0]?.effect).toBe('reload')
  expect(listChanges(of('a/#', bounded), of('c/#', bounded))[0]?.effect).toBe('reload')
  expect(listChanges(of('a/#'), of('a/#', bounded))[0]?.effect).toBe('restart')
})

test('the options that need a restart keep their values, the others change', () => {
  const from = configOf({ host: '127.0.0.1', http: { port: 8080 } })
  const to = configOf({ host: '::1', http: { port: 8081, redirect: true }, deny: ['~'] })
  const result = withoutRestart(from, to)
  expect(result.http).toMatchObject({ port: 8080, redirect: true })
  expect(result).toMatchObject({ host: '127.0.0.1', deny: ['~'] })
})
