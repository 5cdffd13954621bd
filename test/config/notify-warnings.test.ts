import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.js'
import { fileModes, riskWarnings } from '../../src/config/warnings.js'

const cwd = mkdtempSync(join(tmpdir(), 'mqway-notify-warnings-'))
afterAll(() => rmSync(cwd, { recursive: true }))
writeFileSync(join(cwd, 'text'), '', { mode: 0o644 })
writeFileSync(join(cwd, 'program'), '', { mode: 0o755 })

function warnings(config: object): string[] {
  writeFileSync(join(cwd, 'mqway.yaml'), JSON.stringify(config))
  return riskWarnings(loadConfig({ argv: [], env: {}, cwd }), fileModes(cwd)).filter(line => line.startsWith('notify'))
}

const mail = { from: 'a@b', sendmail: 'program' }
const to = ['ops@example.org']

test('a rule that hears of nothing is named, with what push gets', () => {
  const rules = [
    { topics: ['news/#', 'supervisor/+/+/EXITED'], to },
    { topics: ['news'], to },
    { topics: ['new/#'], to },
    { events: ['broker-away'], to },
  ]
  expect(warnings({ notify: { mail, rules }, push: { topics: ['news/#', 'chat/+'] } })).toEqual([
    'notify.rules[0].topics[1]: never matches: push.topics (news/#, chat/+) has no topic of supervisor/+/+/EXITED',
    'notify.rules[2].topics[0]: never matches: push.topics (news/#, chat/+) has no topic of new/#',
  ])
})

test('with all topics of the built-in broker, only those of the broker itself are not heard', () => {
  const rules = [{ topics: ['supervisor/+/+/EXITED', '#', '$SYS/#'], to }]
  expect(warnings({ notify: { mail, rules } })).toEqual([
    'notify.rules[0].topics[2]: never matches: push.topics (#) has no topic of $SYS/#',
  ])
})

test('a sendmail that is no program is named', () => {
  const warn = (sendmail: string) =>
    warnings({ notify: { mail: { from: 'a@b', sendmail }, rules: [{ topics: ['#'], to }] } })
  expect(warn('program')).toEqual([])
  for (const name of ['text', 'none']) {
    expect(warn(name)).toEqual([`notify.mail.sendmail: there is no program ${name}; no mail goes until there is`])
  }
})
