import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import bcrypt from 'bcrypt'
import { defaultCost, parseHtpasswd, passwordProblem, userNameProblem, withUser } from '../access/htpasswd.js'
import { UsageError } from '../config/flags.js'
import { isMissing, replaceFile } from './replace-file.js'
import { askHidden, readLine } from './secret-input.js'

const usage = 'mqway passwd FILE USER, or mqway passwd FILE USER - to read the password from standard input'

/**
 * `mqway passwd FILE USER [-]`: adds a user to a password file, or sets a new password.
 *
 * @returns exit code 0; 1 if the file cannot be read or written; 2 for an invalid name, password or file
 */
export async function passwd(argv: readonly string[], _env: NodeJS.ProcessEnv): Promise<number> {
  const { values, positionals } = parseArgs({ args: [...argv], strict: false, allowPositionals: true })
  const [file, user, dash, ...more] = positionals
  if (file === undefined || user === undefined || more.length > 0 || Object.keys(values).length > 0) {
    return fail(2, `needs a file and a user: ${usage}`)
  }
  if (dash !== undefined && dash !== '-') return fail(2, `${dash}: is not expected here: ${usage}`)
  try {
    // Checked before asking for the password.
    const name = userNameProblem(user)
    if (name !== undefined) return fail(2, `the user name ${JSON.stringify(user)} ${name}`)
    const known = parseUsers(file, await readText(file)).has(user)

    const password = dash === '-' ? await readLine(process.stdin) : await askTwice(user)
    const problem = passwordProblem(password)
    if (problem !== undefined) return fail(2, `the password ${problem}`)
    const hash = (await bcrypt.hash(password, defaultCost)).replace(/^\$2b/, '$2y')
    await replaceFile(file, withUser(await readText(file), user, hash))
    process.stderr.write(known ? `${user} has a new password in ${file}\n` : `${user} was added to ${file}\n`)
    return 0
  } catch (error) {
    if (error instanceof UsageError) return fail(2, error.message)
    if (error instanceof Error && 'syscall' in error) return fail(1, error.message)
    throw error
  }
}

function fail(code: number, message: string): number {
  process.stderr.write(`mqway passwd: ${message}\n`)
  return code
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (isMissing(error)) return ''
    throw error
  }
}

/** Refuses to extend an invalid password file, which may be any file. */
function parseUsers(file: string, text: string) {
  try {
    return parseHtpasswd(text)
  } catch (error) {
    throw new UsageError(`${file}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function askTwice(user: string): Promise<string> {
  if (!process.stdin.isTTY) throw new UsageError(`standard input is no terminal to ask on: ${usage}`)
  const [first = '', second] = await askHidden([`Password for ${user}: `, 'Once more: '], process.stdin)
  if (first !== second) throw new UsageError('the two passwords are not the same; nothing was changed')
  return first
}
