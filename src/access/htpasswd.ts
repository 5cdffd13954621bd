import { isUserName } from '../base/identity.js'

/** User names and bcrypt hashes. */
export type Users = ReadonlyMap<string, string>

/** bcrypt ignores all further bytes of a password. */
export const maxPasswordBytes = 72

/** The cost of new hashes: 2^10 rounds, some 60 ms of one core. */
export const defaultCost = 10

/** 2^16 rounds take four seconds; a file with more is a mistake. */
const maxCost = 16

const hashForm = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/

/** The cost of a bcrypt hash: the binary logarithm of its rounds; `undefined` for anything else. */
export function costOf(hash: string): number | undefined {
  const cost = Number(hashForm.exec(hash)?.[1])
  return cost >= 4 && cost <= 31 ? cost : undefined
}

/**
 * Parses a password file of Apache's `htpasswd -B` or `mqway passwd`: lines of `user:hash`; empty lines and those that begin with `#`
 * are ignored.
 *
 * @throws {Error} naming the line and the problem, never a hash
 */
export function parseHtpasswd(text: string): Users {
  const users = new Map<string, string>()
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const problem = addUser(users, line)
    if (problem !== undefined) throw new Error(`line ${index + 1} ${problem}`)
  }
  return users
}

function addUser(users: Map<string, string>, line: string): string | undefined {
  const colon = line.indexOf(':')
  if (colon === -1) return 'must be user:hash'
  const user = line.slice(0, colon)
  const hash = line.slice(colon + 1)
  const shown = JSON.stringify(user)
  if (!isUserName(user)) return `must begin with a user name of 1 to 255 bytes without control characters, not ${shown}`
  if (users.has(user)) return `repeats the user ${shown}`
  const cost = costOf(hash)
  if (cost === undefined) return `must have a bcrypt hash ($2y$…) for ${shown}; mqway passwd writes one`
  if (cost > maxCost) return `must have a hash of cost ${maxCost} at most for ${shown}, not ${cost}`
  users.set(user, hash)
  return undefined
}

/** Returns why a name cannot be in the password file, to follow the name: `must …`; `undefined` if it can. */
export function userNameProblem(user: string): string | undefined {
  if (user.includes(':')) return 'must not contain a colon, which ends the name in the file'
  if (user.startsWith('#')) return 'must not begin with #, which begins a comment in the file'
  return isUserName(user) ? undefined : 'must have 1 to 255 bytes, and no control characters'
}

/** Returns why a password is not allowed, to follow “the password”; `undefined` if it is. */
export function passwordProblem(password: string): string | undefined {
  if (password === '') return 'must not be empty'
  if (password.includes('\0')) return 'must not contain U+0000'
  const bytes = Buffer.byteLength(password)
  return bytes > maxPasswordBytes
    ? `must have at most ${maxPasswordBytes} bytes, not ${bytes}: bcrypt ignores the rest`
    : undefined
}

/**
 * Sets the hash of `user` in the text of a password file: in the user's line, or in a new one at the end. Other lines stay unchanged.
 */
export function withUser(text: string, user: string, hash: string): string {
  const fresh = `${user}:${hash}`
  const lines = text.split('\n')
  const at = lines.findIndex(line => line.startsWith(`${user}:`))
  if (at !== -1) return lines.with(at, fresh).join('\n')
  return text === '' || text.endsWith('\n') ? `${text}${fresh}\n` : `${text}\n${fresh}\n`
}
