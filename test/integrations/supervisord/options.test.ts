import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { UsageError } from '../../../src/config/flags.js'
import { readSupervisorOptions } from '../../../src/integrations/supervisord/options.js'

const cwd = mkdtempSync(join(tmpdir(), 'mqway-supervisor-options-'))
afterAll(() => rmSync(cwd, { recursive: true }))
for (const [name, text] of [
  ['password', 'right\n'],
  ['empty', '\n'],
  ['ca.pem', ''],
  ['cert.pem', ''],
  ['key.pem', ''],
]) {
  writeFileSync(join(cwd, name ?? ''), text ?? '')
}

const read = (args: readonly string[], env: NodeJS.ProcessEnv = {}) => readSupervisorOptions(args, env, cwd)

/** The message of the refusal. */
function refusal(args: readonly string[], env?: NodeJS.ProcessEnv): string {
  try {
    read(args, env)
  } catch (error) {
    if (error instanceof UsageError) return error.message
    throw error
  }
  return ''
}

const tls = ['--url', 'mqtts://b']

describe('the options of mqway supervisor', () => {
  it('have defaults', () => {
    expect(read([])).toEqual({ url: 'mqtt://127.0.0.1:1883', files: {}, topic: 'supervisor', timeout: 10_000 })
  })

  it('come from the command line, and then from variables', () => {
    const args = [...tls, '--topic=a/b', '--ca', 'ca.pem', '--cert', 'cert.pem', '--key', 'key.pem']
    const env = { MQWAY_SUPERVISOR_URL: 'http://a', MQWAY_SUPERVISOR_TIMEOUT: '1m', MQWAY_SUPERVISOR_TOPIC: '' }
    expect(read(args, env)).toMatchObject({
      url: 'mqtts://b',
      files: { ca: join(cwd, 'ca.pem'), cert: join(cwd, 'cert.pem'), key: join(cwd, 'key.pem') },
      topic: 'a/b',
      timeout: 60_000,
    })
  })

  it.each([
    [['--password-file', 'password'], {}],
    [[], { MQWAY_SUPERVISOR_PASSWORD_FILE: 'password' }],
    [[], { MQWAY_SUPERVISOR_PASSWORD: 'right' }],
  ])('have a user name in the URL, and the password elsewhere: %j %j', (args, env) => {
    expect(read(['--url', 'mqtt://%C3%A4lice@b', ...args], env)).toMatchObject({
      url: 'mqtt://b',
      username: 'älice',
      password: 'right',
    })
  })

  it.each([
    [
      ['--url', 'mqtt://alice:secret@broker'],
      '--url: must be without a password; use --password-file or MQWAY_SUPERVISOR_PASSWORD',
    ],
    [['mqtt://alice:secret@broker'], 'a value without an option: is not expected here; options begin with --'],
    [['--ulr', 'mqtt://alice:secret@broker'], '--ulr: is not an option; did you mean --url?'],
    [
      ['--url', 'http://alice:secret@broker'],
      '--url: must be mqtt://[user@]host:port, mqtts://[user@]host:port or unix:/path/to/socket',
    ],
    [['--url', 'mqtt://@b'], '--url: must be mqtt://[user@]host:port'],
    [['--url', 'mqtt://%zz@b'], '--url: the user name has a % that is not followed by two hexadecimal digits'],
    [['--url', ''], '--url: needs a value'],
    [['--url'], '--url: needs a value'],
    [['--url', '--topic', 'a'], '--url: needs a value'],
    [['--password', 'secret'], '--password: is not an option; use --password-file or MQWAY_SUPERVISOR_PASSWORD'],
    [['--password-file', 'none', '--url', 'mqtt://a@b'], '--password-file: "none" must be a file that exists'],
    [['--password-file', 'empty', '--url', 'mqtt://a@b'], '--password-file: "empty" must have the password in it'],
    [['--password-file', 'password'], '--url: needs a user name where there is a password: mqtt://user@host:port'],
    [['--ca', 'ca.pem'], '--ca: needs a --url that begins with mqtts://'],
    [[...tls, '--ca', 'none.pem'], '--ca: "none.pem" must be a file that exists'],
    [[...tls, '--cert', 'cert.pem'], '--cert: needs --key beside it'],
    [[...tls, '--key', 'key.pem'], '--key: needs --cert beside it'],
    [['--topic', 'a/#'], '--topic: "a/#" must be a topic, without +, #, $ and control characters'],
    [['--topic', '$SYS/a'], '--topic: "$SYS/a" must be a topic, without +, #, $ and control characters'],
    [['--topic', 'a\tb'], '--topic: "a\\tb" must be a topic, without +, #, $ and control characters'],
    [['--timeout', '3'], '--timeout: "3" must be a time such as 10s or 1m, up to 1h'],
    [['--timeout', '0s'], '--timeout: "0s" must be a time such as 10s or 1m, up to 1h'],
    [['--tmeout', '3s'], '--tmeout: is not an option; did you mean --timeout?'],
    [['cat'], 'cat: is not expected here; options begin with --'],
  ])('%j are refused, with what would be right', (args, message) => {
    const said = refusal(args)
    expect(said).toContain(message)
    expect(said).not.toContain('secret')
  })

  it('are refused under the name of the variable that they come from', () => {
    expect(refusal([], { MQWAY_SUPERVISOR_TIMEOUT: '3' })).toMatch(/^MQWAY_SUPERVISOR_TIMEOUT: "3" must be/)
    expect(refusal(tls, { MQWAY_SUPERVISOR_CA: 'none.pem' })).toMatch(/^MQWAY_SUPERVISOR_CA: "none.pem" must be/)
  })
})
