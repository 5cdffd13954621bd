import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { ConfigError, loadConfig } from '../../src/config/load.js'
import { riskWarnings } from '../../src/config/warnings.js'
import { writeConfig } from '../../src/config/write.js'

const cwd = mkdtempSync(join(tmpdir(), 'mqway-notify-config-'))
afterAll(() => rmSync(cwd, { recursive: true }))

function load(config: object) {
  writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify(config))
  return loadConfig({ argv: [], env: {}, cwd })
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

const mail = { from: 'a@b', sendmail: '/usr/sbin/sendmail' }
const rule = { topics: ['a/#'], to: ['ops@example.org'] }

test.each([
  [
    { notify: { mail: { from: 'a@b' }, rules: [rule] } },
    'notify.mail: this mapping needs exactly one of smtp and sendmail',
  ],
  [{ notify: { mail: { ...mail, from: 'a@b\nBcc: c@d' }, rules: [rule] } }, 'notify.mail.from: '],
  [
    { notify: { mail, rules: [{ ...rule, to: ['a@b, c@d'] }] } },
    'notify.rules[0].to[0]: "a@b, c@d" must be one address',
  ],
  [{ notify: { mail, rules: [{ to: ['a@b'] }] } }, 'notify.rules[0]: this mapping is about nothing'],
  [{ notify: { mail, rules: [{ ...rule, topics: ['a#'] }] } }, 'must have # alone in its level'],
  [{ notify: { mail, rules: [{ ...rule, topics: ['/'.repeat(100)] }] } }, 'must have at most 100 levels'],
  [
    { notify: { mail, rules: [{ ...rule, text: '{name}' }] } },
    'must have no other placeholders than {topic}, {payload}, {time}, {id}, {rule} and {json.member}',
  ],
  [
    {
      notify: {
        mail,
        rules: [
          { ...rule, name: 'x' },
          { ...rule, name: 'x' },
        ],
      },
    },
    'is the name of an earlier rule, too',
  ],
  [{ notify: { mail, rules: [rule] }, push: 'off' }, 'notify: this mapping needs push'],
  [{ notify: { mail, rules: [rule] }, broker: 'mqtt://localhost:1' }, 'notify: this mapping needs push'],
  [
    { notify: { mail: { from: 'a@b', smtp: { url: 'smtp://x', password: 'secret' } }, rules: [rule] } },
    'smtp.password: needs username',
  ],
  [
    { notify: { mail: { from: 'a@b', smtp: { url: 'smtp://u:secret@x' } }, rules: [rule] } },
    'must be smtp://host:port or smtps://host:port',
  ],
  [
    { notify: { mail: { from: 'a@b', smtp: { url: 'smtp://x', ca: 'none.pem' } }, rules: [rule] } },
    'notify.mail.smtp.ca: "none.pem" must be a file that exists',
  ],
])('%j is refused', (config, message) => {
  const found = problems(config).join('\n')
  expect(found).toContain(message)
  expect(found).not.toContain('secret')
})

const url = 'https://example.org/hook'
const key = (bytes: number) => `whsec_${Buffer.alloc(bytes, 'k').toString('base64')}`
const hooks = (webhook: unknown, more: object = {}) => ({ notify: { rules: [{ topics: ['a/#'], webhook, ...more }] } })

test.each([
  [hooks({ url }), 'webhook: this mapping needs exactly one of secret and secretFile'],
  [hooks({ url, secret: key(32), secretFile: 'x' }), 'needs exactly one of secret and secretFile'],
  [hooks({ url, secretFile: 'none' }), 'webhook.secretFile: "none" must be a file that exists'],
  [
    hooks({ url, secret: key(23) }),
    'webhook.secret: [redacted] must be whsec_ and the base64 of 24 to 64 random bytes',
  ],
  [hooks({ url, secret: key(65) }), 'must be whsec_ and'],
  [hooks({ url, secret: key(32).slice(6) }), 'must be whsec_ and'],
  [hooks({ url, secret: `${key(32)}!` }), 'must be whsec_ and'],
  [hooks({ url, secret: '[redacted]' }), 'must be the secret itself'],
  [hooks({ url, secretFile: 'mqway.yaml', previousSecret: key(32) }), 'previousSecret: needs secret beside it'],
  [hooks({ url: 'ftp://example.org', secret: key(32) }), 'webhook.url: "ftp://example.org" must be https://host/path'],
  [hooks({ url: 'https://u:hidden@example.org', secret: key(32) }), 'without a user name or a password in it'],
  [hooks({ url, secret: key(32), retries: 3 }), 'webhook.retries: is not an option'],
  [hooks({ url, secret: key(32) }, { to: ['a@b'] }), 'needs exactly one of to and webhook'],
  [{ notify: { rules: [{ topics: ['a'] }] } }, 'needs exactly one of to and webhook'],
  [hooks({ url, secret: key(32) }, { text: '{topic}' }), 'subject and text are those of mails'],
  [{ notify: { rules: [rule] } }, 'notify: this mapping needs mail'],
])('%j is refused, and its secret is not shown', (config, message) => {
  const found = problems(config).join('\n')
  expect(found).toContain(message)
  expect(found).not.toMatch(/a2tr|hidden/)
})

test('the secrets of a webhook, and the query of its URL, are not shown', () => {
  const { config } = load(hooks({ url: `${url}?token=hidden`, secret: key(32), previousSecret: key(24) }))
  const text = writeConfig(config)
  expect(text).not.toMatch(/a2tr|hidden/)
  expect(text).toContain('maxEvents: 100')
})

test('a webhook without TLS on another machine is a risk, and so is a secret that everybody can read', () => {
  const warn = (webhook: object, mode = 0o100600) =>
    riskWarnings(load(hooks(webhook)), () => mode).filter(line => line.includes('webhook'))
  expect(warn({ url, secret: key(32) })).toEqual([])
  expect(warn({ url: 'http://127.0.0.1/x', secret: key(32) })).toEqual([])
  expect(warn({ url: 'http://[::1]:80/x', secret: key(32) })).toEqual([])
  expect(warn({ url: 'http://example.org/x', secret: key(32) })).toEqual([
    'notify.rules[0].webhook.url: an attacker on the network could read http://; use https://',
  ])
  const option = 'notify.rules[0].webhook'
  expect(warn({ url, secret: key(32) }, 0o100644)).toEqual([expect.stringContaining(`${option}.secret: every user`)])
  expect(warn({ url, secretFile: 'mqway.yaml' }, 0o100644)).toEqual([
    expect.stringContaining(`${option}.secretFile: every user`),
  ])
})

test('the password of the mail server is not shown, and what is shown is a configuration again', () => {
  const smtp = { url: 'smtp://mail.example.org', username: 'u', password: 'hidden' }
  const { config } = load({
    notify: { mail: { from: 'a@b', smtp }, rules: [{ ...rule, when: { a: [1, true, 'x'] } }] },
  })
  const text = writeConfig(config)
  expect(text).not.toContain('hidden')
  expect(text).toContain('giveUpAfter: 2d')
  writeFileSync(join(cwd, 'again.yaml'), text.replace('[redacted]', 'hidden'))
  expect(loadConfig({ argv: ['--config', 'again.yaml'], env: {}, cwd }).config).toEqual(config)
})

test('mails that go unencrypted to another machine are a risk', () => {
  const warn = (url: string, startTLS: string) => {
    const loaded = load({ notify: { mail: { from: 'a@b', smtp: { url, startTLS } }, rules: [rule] } })
    return riskWarnings(loaded, () => undefined).filter(line => line.startsWith('notify'))
  }
  expect(warn('smtp://mail.example.org', 'opportunistic')).toHaveLength(1)
  expect(warn('smtp://mail.example.org', 'required')).toEqual([])
  expect(warn('smtp://127.0.0.1:25', 'off')).toEqual([])
  expect(warn('smtps://mail.example.org', 'off')).toEqual([])
})
