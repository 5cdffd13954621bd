import { readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { flags, variableOf } from '../../src/config/flags.js'
import { jsonSchema, listOptions } from '../../src/config/options.js'

/** With UPDATE=1 the generated files are written anew: `UPDATE=1 npx vitest run test/config/options.test.ts`. */
function expectFile(path: string, replace: (old: string) => string): void {
  const url = new URL(`../../${path}`, import.meta.url)
  const old = readFileSync(url, 'utf8')
  const fresh = replace(old)
  if (process.env['UPDATE'] === '1') writeFileSync(url, fresh)
  else expect(old, `${path} is stale: UPDATE=1 npx vitest run test/config/options.test.ts`).toBe(fresh)
}

test('mqway.schema.json is what the schema says', () => {
  expectFile('mqway.schema.json', () => `${JSON.stringify(jsonSchema(), null, 2)}\n`)
})

test('the table in docs/configuration.md is what the schema says', () => {
  const [begin, end] = ['<!-- options -->', '<!-- /options -->']
  expectFile('docs/configuration.md', old => {
    const before = old.slice(0, old.indexOf(begin) + begin.length)
    const after = old.slice(old.indexOf(end))
    return `${before}\n${optionTable()}\n${after}`
  })
})

function optionTable(): string {
  const isSection = (path: string) => listOptions().some(option => option.path.startsWith(`${path}.`))
  // A tunnel's broker has the options of the top-level one, which the text above the table says.
  const options = listOptions().filter(option => !option.path.startsWith('tunnels[].broker.'))
  const rows = options.map(({ path, default: value, description }) => {
    const shown = value === undefined || (isSection(path) && path !== 'broker') ? '' : `\`${JSON.stringify(value)}\``
    return `| \`${path}\` | ${shown.replaceAll('"', '')} | ${description.replaceAll('|', '\\|')} |`
  })
  return ['| option | default | |', '|---|---|---|', ...rows].join('\n')
}

test('docs/configuration.md names every flag with its variable', () => {
  const text = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8')
  for (const { name, value, option } of flags) {
    const path = option.length === 0 ? '' : `\`${option.join('.')}\` `
    expect(text).toContain(`| \`--${name} ${value}\` | \`${variableOf(name)}\` | ${path}|`)
  }
})

test('every option has a description', () => {
  expect(listOptions().filter(option => option.description === '')).toEqual([])
})

test('every option with a unit has its default in that unit, as a person would write it', () => {
  const defaults = Object.fromEntries(listOptions().map(option => [option.path, option.default]))
  expect(defaults['limits.handshakeTimeout']).toBe('10s')
  expect(defaults['limits.headerSize']).toBe('16KiB')
  expect(defaults['tunnels[].pingInterval']).toBe('30s')
  expect(defaults['tunnels[].broker.connectTimeout']).toBe('5s')
})

test('passwords and shared secrets are never shown, and nothing else is hidden', () => {
  const secrets = listOptions().filter(option => option.secret)
  expect(secrets.map(option => option.path)).toEqual([
    'access.jwt.secret',
    'access.webhook.secret',
    'broker.password',
    'tunnels[].broker.password',
    'push.password',
    'notify.mail.smtp.password',
    'notify.rules[].webhook.secret',
    'notify.rules[].webhook.previousSecret',
  ])
})
