import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { ConfigError, loadConfig } from '../../src/config/load.js'
import { listOptions } from '../../src/config/options.js'
import { listPrivateFiles } from '../../src/config/private-files.js'
import type { ConfigInput } from '../../src/config/schema.js'

const root = mkdtempSync(join(tmpdir(), 'mqway-own-'))
afterAll(() => rmSync(root, { recursive: true }))

let directories = 0
/** A working directory with `mqway.yaml`, the directories `site` and `private`, and a file in each place where one is named. */
function workingDirectory(config: ConfigInput): string {
  const cwd = join(root, String(++directories))
  for (const name of ['site', 'private']) mkdirSync(join(cwd, name), { recursive: true })
  for (const name of ['users', 'key.pem', 'cert.pem', 'private/key.pem', 'site/index.html'])
    writeFileSync(join(cwd, name), '')
  writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify(config))
  return cwd
}

function problems(cwd: string): readonly string[] {
  try {
    loadConfig({ argv: [], env: {}, cwd })
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems
  }
}

const off = { https: { port: 'off' }, data: 'none' } satisfies ConfigInput
const pem = { https: { cert: '../outside.pem', key: '../outside.pem' } } satisfies ConfigInput
writeFileSync(join(root, 'outside.pem'), '')

describe('a public directory', () => {
  test.each<[what: string, config: ConfigInput, names: string[]]>([
    [
      'the working directory',
      {},
      ['mqway.yaml (configuration file)', 'certs (development certificate)', 'data (data)'],
    ],
    ['with the configuration file', off, ['mqway.yaml (configuration file)']],
    ['with a password file', { ...off, access: { htpasswd: 'users' } }, ['users (access.htpasswd)']],
    ['with a key', { ...off, https: { cert: 'cert.pem', key: 'key.pem' } }, ['key.pem (https.key)']],
    ['with a development certificate for MQTT', { ...off, mqtts: { port: 8883 } }, ['certs (development certificate)']],
    ['with a Unix socket', { ...off, mqtt: { port: 'unix:./mqtt.sock' } }, ['mqtt.sock (mqtt.port)']],
    ['with a broker’s socket', { ...off, broker: 'unix:./b.sock' }, ['b.sock (broker)']],
    [
      'with a tunnel’s key',
      { ...off, tunnels: [{ path: '/m', broker: { url: 'mqtts://b', cert: 'cert.pem', key: 'key.pem' } }] },
      ['key.pem (tunnels[0].broker.key)'],
    ],
  ])('%s is refused, in one line that names what is in it', (_what, config, names) => {
    const [line, ...others] = problems(workingDirectory({ ...config, public: '.' }))
    expect(others).toEqual([])
    expect(line).toMatch(/^mqway\.yaml:1: public: "\." must be a directory without files of mqway itself/)
    for (const name of names) expect(line).toContain(name)
  })

  test.each<[config: ConfigInput]>([
    [{ public: 'data/site', data: 'data' }],
    [{ public: 'link' }],
    [{ public: 'site', data: 'link-to-site/data' }],
    [{ public: 'site', https: { cert: 'cert.pem', key: 'site/../site/key.pem' } }],
  ])('is refused inside of the data directory, and behind links: %j', config => {
    const cwd = workingDirectory({ ...pem, ...config })
    mkdirSync(join(cwd, 'data/site'), { recursive: true })
    writeFileSync(join(cwd, 'site/key.pem'), '')
    symlinkSync('.', join(cwd, 'link'))
    symlinkSync('site', join(cwd, 'link-to-site'))
    expect(problems(cwd)).toEqual([expect.stringContaining('without files of mqway itself')])
  })

  test('beside them is taken', () => {
    expect(problems(workingDirectory({ public: 'site', access: { htpasswd: 'users' } }))).toEqual([])
    expect(problems(workingDirectory({ ...off, public: 'site', data: 'site-data' }))).toEqual([])
  })
})

test('an access log in the public directory is refused, and on standard output it is no file', () => {
  const refused = workingDirectory({ ...pem, public: 'site', accessLog: { file: 'site/access.log' } })
  expect(problems(refused)).toEqual([expect.stringContaining('site/access.log (accessLog.file)')])
  expect(problems(workingDirectory({ ...off, public: 'site', data: 'none', accessLog: { file: 'stdout' } }))).toEqual(
    [],
  )
})

test('every option that names a file is among the program’s own files, but for the directory that is served', () => {
  const upstream = { url: 'mqtts://b', ca: 'f', cert: 'f', key: 'f' }
  const named = {
    access: { htpasswd: 'f', jwt: { secretFile: 'f', jwks: 'f' }, clientCertificates: { ca: 'f', crl: 'f' } },
    accessLog: { file: 'f' },
    broker: upstream,
    data: 'f',
    https: {
      ...{ cert: 'f', key: 'f', chain: 'f', acme: { ca: 'f' } },
      certificates: [{ hosts: [], cert: 'f', key: 'f', chain: 'f' }],
    },
    notify: { mail: { sendmail: 'f', smtp: { ca: 'f' } }, rules: [{ webhook: { secretFile: 'f', ca: 'f' } }] },
    push: { journal: { redis: { passwordFile: 'f', ca: 'f' } } },
    tunnels: [{ broker: upstream }],
  }
  const count = JSON.stringify(named).split('"f"').length - 1
  expect(listOptions().filter(({ file, path }) => file && path !== 'public')).toHaveLength(count)
})

test('a URL of public keys is no file', () => {
  const cwd = workingDirectory({ ...off, access: { jwt: { jwks: 'https://issuer.example/keys' } } })
  const { config, file } = loadConfig({ argv: [], env: {}, cwd })
  expect(listPrivateFiles(config, file, cwd).map(({ name }) => name)).toEqual(['configuration file'])
})
