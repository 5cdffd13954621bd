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
