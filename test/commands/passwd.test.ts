import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import bcrypt from 'bcrypt'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parseHtpasswd } from '../../src/access/htpasswd.js'
import { mqway } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { onTerminal } from '../helpers/terminal.js'

const program = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

let directory: string
let file: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mqway-passwd-'))
  file = join(directory, 'users')
})
afterEach(() => rmSync(directory, { recursive: true }))

/** Runs the command with this on standard input. */
async function passwd(
  args: readonly string[],
  input: string | Buffer = '',
): Promise<{ code: number | null; errors: string }> {
  const running = mqway(['passwd', ...args], directory)
  running.child.stdin.on('error', () => {})
  running.child.stdin.end(input)
  return { code: await running.exited(), errors: running.errors() }
}

function hashOf(user: string): string {
  return (parseHtpasswd(readFileSync(file, 'utf8')).get(user) ?? '').replace('$2y', '$2b')
}

describe('mqway passwd FILE USER -', () => {
  it('makes a file that only its owner can read, with a bcrypt hash of one line of standard input', async () => {
    expect(await passwd(['users', 'alice', '-'], 'open sesame\r\nmore')).toEqual({
      code: 0,
      errors: 'alice was added to users\n',
    })
    expect(readFileSync(file, 'utf8')).toMatch(/^alice:\$2y\$10\$.{53}\n$/)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(await bcrypt.compare('open sesame', hashOf('alice'))).toBe(true)
    expect(readdirSync(directory)).toEqual(['users'])
  })

  it('changes one user and keeps everything else, also the mode of the file', async () => {
    const other = `bob:$2y$05$${'a'.repeat(53)}`
    writeFileSync(file, `# people\nalice:$2y$05$${'b'.repeat(53)}\n${other}`)
    chmodSync(file, 0o640)
    expect(await passwd(['users', 'alice', '-'], 'ß')).toEqual({
      code: 0,
      errors: 'alice has a new password in users\n',
    })
    const [comment, alice, bob, ...more] = readFileSync(file, 'utf8').split('\n')
    expect([comment, bob, more]).toEqual(['# people', other, []])
    expect(alice).toMatch(/^alice:\$2y\$10/)
    expect(await bcrypt.compare('ß', hashOf('alice'))).toBe(true)
    expect(statSync(file).mode & 0o777).toBe(0o640)
    expect((await passwd(['users', 'carol', '-'], 'x')).code).toBe(0)
    expect([...parseHtpasswd(readFileSync(file, 'utf8')).keys()]).toEqual(['alice', 'bob', 'carol'])
  })

  it('writes to where a link leads, and leaves the link', async () => {
    symlinkSync('real', file)
    writeFileSync(join(directory, 'real'), '')
    expect((await passwd(['users', 'alice', '-'], 'x')).code).toBe(0)
    expect(readFileSync(join(directory, 'real'), 'utf8')).toMatch(/^alice:/)
    expect(
      readdirSync(directory, { withFileTypes: true })
        .find(entry => entry.name === 'users')
        ?.isSymbolicLink(),
    ).toBe(true)
  })

  it.each<[string, string | Buffer, string]>([
    ['alice', 'x'.repeat(73), 'the password must have at most 72 bytes, not 73: bcrypt ignores the rest'],
    ['alice', '', 'the password must not be empty'],
    ['alice', '\n', 'the password must not be empty'],
    ['alice', 'a\0b', 'the password must not contain U+0000'],
    ['alice', Buffer.from([0xff, 0x0a]), 'the line on standard input is not UTF-8'],
    ['a:b', 'x', 'the user name "a:b" must not contain a colon, which ends the name in the file'],
    ['#a', 'x', 'the user name "#a" must not begin with #'],
    ['a\nroot:x', 'x', 'the user name "a\\nroot:x" must not contain a colon'],
    ['a\nb', 'x', 'the user name "a\\nb" must have 1 to 255 bytes, and no control characters'],
  ])('refuses %j with %j', async (user, input, message) => {
    const { code, errors } = await passwd(['users', user, '-'], input)
    expect(code).toBe(2)
    expect(errors).toContain(`mqway passwd: ${message}`)
    expect(errors.trimEnd().split('\n')).toHaveLength(1)
    expect(readdirSync(directory)).toEqual([])
  })

  it('refuses a file that is no password file, and leaves it alone', async () => {
    writeFileSync(file, 'root:x:0:0:root:/root:/bin/bash\n')
    const { code, errors } = await passwd(['users', 'alice', '-'], 'x')
    expect(code).toBe(2)
    expect(errors).toBe(
      'mqway passwd: users: line 1 must have a bcrypt hash ($2y$…) for "root"; mqway passwd writes one\n',
    )
    expect(readFileSync(file, 'utf8')).toBe('root:x:0:0:root:/root:/bin/bash\n')
  })

  it('is exit code 1 where the file cannot be written', async () => {
    const { code, errors } = await passwd(['nowhere/users', 'alice', '-'], 'x')
    expect(code).toBe(1)
    expect(errors).toMatch(/^mqway passwd: ENOENT: .*nowhere/)
    expect((await passwd(['.', 'alice', '-'], 'x')).code).toBe(1)
  })

  it.each([
    [[]],
    [['users']],
    [['users', 'alice', 'secret']],
    [['users', 'alice', '-', 'more']],
    [['--user', 'alice']],
  ])('is exit code 2 with %j', async args => {
    const { code, errors } = await passwd(args)
    expect(code).toBe(2)
    expect(errors).toContain('mqway passwd FILE USER')
    expect(errors).not.toMatch(/\n./)
  })

  it('does not wait for a person where there is no terminal', async () => {
    const { code, errors } = await passwd(['users', 'alice'], 'secret\n')
    expect(code).toBe(2)
    expect(errors).toContain('standard input is no terminal to ask on')
  })
})

describeWith('/usr/bin/python3', 'mqway passwd on a terminal', () => {
  const ask = (...steps: [string, string][]) =>
    onTerminal([process.execPath, program, 'passwd', 'users', 'alice'], steps, directory)

  it('asks twice and shows nothing of what is typed', async () => {
    const { shown, code } = await ask(['Password for alice: ', 'sesame\x7f\x7fXY\r'], ['Once more: ', 'sesaXY\r'])
    expect(code).toBe(0)
    expect(shown.replaceAll('\r', '')).toBe('Password for alice: \nOnce more: \nalice was added to users\n')
    expect(await bcrypt.compare('sesaXY', hashOf('alice'))).toBe(true)
  })

  it('takes both answers also when they come at once', async () => {
    const { code } = await ask(['Password for alice: ', 'sesame\rsesame\r'])
    expect(code).toBe(0)
    expect(await bcrypt.compare('sesame', hashOf('alice'))).toBe(true)
  })

  it('refuses two that are not the same', async () => {
    const { shown, code } = await ask(['Password', 'one\r'], ['Once more', 'two\r'])
    expect(code).toBe(2)
    expect(shown).toContain('the two passwords are not the same; nothing was changed')
    expect(readdirSync(directory)).toEqual([])
  })

  it.each(['\x03', '\x04'])('changes nothing after %j', async key => {
    const { shown, code } = await ask(['Password', `secret\x15${key}`])
    expect(code).toBe(2)
    expect(shown).toContain('nothing was changed')
    expect(shown).not.toContain('secret')
    expect(readdirSync(directory)).toEqual([])
  })
})
