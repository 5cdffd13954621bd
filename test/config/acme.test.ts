import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { challengeOf } from '../../src/config/acme.js'
import { ConfigError, type LoadedConfig, loadConfig } from '../../src/config/load.js'
import { startWarnings } from '../../src/config/warnings.js'

function load(config: object): LoadedConfig {
  const cwd = mkdtempSync(join(tmpdir(), 'mqway-acme-'))
  try {
    writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify(config))
    return loadConfig({ argv: [], env: {}, cwd })
  } finally {
    rmSync(cwd, { recursive: true })
  }
}

function problems(config: object): readonly string[] {
  try {
    load(config)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

const acme = { domains: ['a.example'], agreeTerms: true }

test('names and the agreement are enough', () => {
  const { config } = load({ https: { acme: { ...acme, domains: ['A.example', 'xn--bcher-kva.example', 'intranet'] } } })
  expect(config.https.acme).toEqual({
    domains: ['a.example', 'xn--bcher-kva.example', 'intranet'],
    agreeTerms: true,
    directory: 'https://acme-v02.api.letsencrypt.org/directory',
  })
  expect(config.mqtts.port).toBe(8883)
  expect(load({ https: { acme: { ...acme, renewBefore: '60d' } } }).config.https.acme?.renewBefore).toBe(
    60 * 86_400_000,
  )
})

test.each([
  [{ ...acme, domains: [] }, /domains: this list must not be empty/],
  [{ ...acme, domains: ['*.a.example'] }, /domains\[0\]: "\*\.a\.example" must be a name without \*: .*dns-01/],
  [{ ...acme, domains: ['192.0.2.1'] }, /must be a name: mqway orders no certificates for IP addresses/],
  [{ ...acme, domains: ['2001:db8::1'] }, /must be a name: mqway orders no certificates for IP addresses/],
  [{ ...acme, domains: ['bücher.example'] }, /must be a DNS name such as www\.example\.org, in ASCII/],
  [{ ...acme, domains: ['a.example/x'] }, /must be a DNS name/],
  [{ ...acme, domains: ['a.example', 'A.example'] }, /domains\[1\]: .* is in this list twice/],
  [{ domains: ['a.example'] }, /agreeTerms: must be true: you agree to the terms of service of the CA/],
  [{ ...acme, agreeTerms: false }, /agreeTerms: false must be true/],
  [{ ...acme, directory: 'http://ca.example/' }, /directory: .* must be the https:\/\/ URL/],
  [{ ...acme, email: 'nobody' }, /email: "nobody" must be an e-mail address/],
  [{ ...acme, challenge: 'dns-01' }, /challenge: "dns-01" must be one of http-01, tls-alpn-01/],
  [{ ...acme, renewBefore: '91d' }, /renewBefore: "91d" must be a time .* from 1h to 90d/],
  [{ ...acme, ca: 'nowhere.pem' }, /ca: "nowhere\.pem" must be a file that exists/],
])('%j is refused', (options, problem) => {
  expect(problems({ https: { acme: options } }).join('\n')).toMatch(problem)
})

test('a certificate has 100 names at most', () => {
  const names = (count: number) => Array.from({ length: count }, (_, index) => `h${index}.example`)
  expect(problems({ https: { acme: { ...acme, domains: names(100) } } })).toEqual([])
  expect(problems({ https: { acme: { ...acme, domains: names(101) } } }).join()).toMatch(/at most 100 names/)
})

test.each([
  [{ data: 'none' }, {}, /https\.acme: this mapping needs a data directory/],
  [{}, { cert: 'mqway.yaml', key: 'mqway.yaml' }, /https\.acme: .* is in place of https\.cert and https\.key/],
  [{ mqtts: { port: 'off' } }, { port: 'off' }, /https\.acme: .* needs https\.port or mqtts\.port/],
  [{ http: { port: 'off' } }, { acme: { ...acme, challenge: 'http-01' } }, /challenge: "http-01" needs http\.port/],
  [
    { mqtts: { port: 8883 } },
    { port: 'off', acme: { ...acme, challenge: 'tls-alpn-01' } },
    /challenge: "tls-alpn-01" needs https\.port/,
  ],
  [{ broker: 'mqtt://127.0.0.1:1884', push: 'off', workers: 2 }, {}, /https\.acme: .* needs workers: 1/],
  [
    {
      broker: 'mqtt://127.0.0.1:1884',
      push: { topics: ['a'], journal: { redis: { url: 'redis://127.0.0.1:6379' } } },
    },
    {},
    /https\.acme: .* without push\.journal\.redis/,
  ],
  [
    {},
    { certificates: [{ hosts: ['*.example'], cert: 'mqway.yaml', key: 'mqway.yaml' }] },
    /domains\[0\]: "a\.example" is what https\.certificates\[0\] serves already/,
  ],
])('%j with https %j is refused', (config, https, problem) => {
  expect(problems({ ...config, https: { acme, ...https } }).join('\n')).toMatch(problem)
})

test('the challenge is the one that suits the ports', () => {
  const of = (http: unknown, https: unknown, options: object = {}) =>
    challengeOf(load({ http: { port: http }, https: { port: https, acme: { ...acme, ...options } } }).config)
  expect(of(8080, 8443)).toBe('http-01')
  expect(of(80, 443)).toBe('http-01')
  expect(of(8080, 443)).toBe('tls-alpn-01')
  expect(of([8080, 80], 443)).toBe('http-01')
  expect(of('off', 8443)).toBe('tls-alpn-01')
  expect(of('unix:/run/mqway/http', 8443)).toBe('http-01')
  expect(of(80, 443, { challenge: 'tls-alpn-01' })).toBe('tls-alpn-01')
})

test('a port that the CA does not connect to is worth a warning', () => {
  const warnings = (http: unknown, https: unknown) =>
    startWarnings(load({ http: { port: http }, https: { port: https, acme } }), () => undefined)
  expect(warnings(8080, 8443)).toEqual([
    'https.acme: the CA connects to port 80 (http-01), which is not http.port: something must forward it',
  ])
  expect(warnings('off', 8443)).toEqual([
    'https.acme: the CA connects to port 443 (tls-alpn-01), which is not https.port: something must forward it',
  ])
  for (const [http, https] of [
    [80, 8443],
    [8080, 443],
    ['unix:/run/mqway/http', 8443],
  ])
    expect(warnings(http, https)).toEqual([])
})
