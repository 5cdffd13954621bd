import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { suggestFlag } from '../../config/flags.js'
import { parseBrokerUrl } from '../../config/forms.js'
import { readingProblem } from '../../config/reading.js'
import { formatDuration, parseDuration } from '../../config/units.js'
import { hasNoControls, isPublishable } from '../../mqtt/message.js'
import { topicFilterProblem } from '../../topics/topic-syntax.js'

/*
 * The command line and environment of `mqway supervisor`.
 */

const fileNames = ['ca', 'cert', 'key'] as const
const flagNames = ['url', 'password-file', ...fileNames, 'topic', 'timeout'] as const
type FlagName = (typeof flagNames)[number]

export interface SupervisorOptions {
  /** Without a user name. */
  readonly url: string
  readonly username: string | undefined
  readonly password: string | undefined
  readonly files: { readonly [name in (typeof fileNames)[number]]?: string }
  readonly topic: string
  /** In milliseconds. */
  readonly timeout: number
}

/** An invalid flag or variable; the message says what would be valid. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

interface Given {
  readonly text: string
  /** The flag or the variable. */
  readonly source: string
}

/** In milliseconds. supervisord itself has no timeout. */
const maxTimeout = 60 * 60 * 1000

/**
 * Reads the options of `mqway supervisor`: flags first, then variables.
 *
 * @param cwd where relative names of files begin
 * @throws {UsageError} without secrets in its message
 */
export function readSupervisorOptions(argv: readonly string[], env: NodeJS.ProcessEnv, cwd: string): SupervisorOptions {
  const flags = readFlags(argv)
  const find = (name: FlagName): Given | undefined => {
    const text = flags.get(name)
    if (text !== undefined) return { text, source: `--${name}` }
    const source = variableOf(name)
    const value = env[source]
    return value ? { text: value, source } : undefined
  }
  const { url, username } = readUrl(find('url') ?? { text: 'mqtt://127.0.0.1:1883', source: '--url' })
  const passwordFile = find('password-file')
  const password = passwordFile ? readPassword(passwordFile, cwd) : env[variableOf('password')] || undefined
  if (password !== undefined && username === undefined) {
    throw new UsageError('--url: needs a user name where there is a password: mqtt://user@host:port')
  }
  return {
    url,
    username,
    password,
    files: readFiles(url, find, cwd),
    topic: readTopic(find('topic') ?? { text: 'supervisor', source: '--topic' }),
    timeout: readTimeout(find('timeout') ?? { text: '10s', source: '--timeout' }),
  }
}

function variableOf(name: FlagName | 'password'): string {
  return `MQWAY_SUPERVISOR_${name.toUpperCase().replace('-', '_')}`
}

function readFlags(argv: readonly string[]): Map<string, string> {
  const options = Object.fromEntries(flagNames.map(name => [name, { type: 'string' as const }]))
  const { tokens } = parseArgs({ args: [...argv], options, strict: false, allowPositionals: true, tokens: true })
  const given = new Map<string, string>()
  for (const token of tokens) {
    // The message does not repeat a value that may be a URL with a password.
    if (token.kind === 'positional' && /[:@]/.test(token.value)) {
      throw new UsageError('what follows no option is not expected here; is it the value of --url?')
    }
    if (token.kind === 'positional') throw new UsageError(`${token.value}: is not expected here; options begin with --`)
    if (token.kind !== 'option') continue
    // Every user of the machine can read command lines.
    if (token.name === 'password') {
      throw new UsageError('--password: is not an option; use --password-file or MQWAY_SUPERVISOR_PASSWORD')
    }
    if (!flagNames.some(name => name === token.name)) {
      throw new UsageError(`${token.rawName}: is not an option${suggestFlag(token.name, flagNames)}`)
    }
    if (!token.value || (!token.inlineValue && /^-./.test(token.value))) {
      throw new UsageError(`${token.rawName}: needs a value`)
    }
    given.set(token.name, token.value)
  }
  return given
}

/** The messages do not repeat the URL: it may contain a password. */
function readUrl({ text, source }: Given): { url: string; username: string | undefined } {
  const [, scheme = '', user, rest = ''] = /^(mqtts?:\/\/)(?:([^/@]*)@)?(.*)$/s.exec(text) ?? ['', '', undefined, text]
  if (user?.includes(':')) {
    throw new UsageError(`${source}: must be without a password; use --password-file or MQWAY_SUPERVISOR_PASSWORD`)
  }
  const url = scheme + rest
  if (!parseBrokerUrl(url) || user === '') {
    throw new UsageError(`${source}: must be mqtt://[user@]host:port, mqtts://[user@]host:port or unix:/path/to/socket`)
  }
  return { url, username: user === undefined ? undefined : decodeUser(user, source) }
}

function decodeUser(user: string, source: string): string {
  try {
    return decodeURIComponent(user)
  } catch {
    throw new UsageError(`${source}: the user name has a % that is not followed by two hexadecimal digits`)
  }
}

function readPassword({ text, source }: Given, cwd: string): string {
  const problem = readingProblem(resolve(cwd, text), 'file')
  if (problem !== undefined) throw new UsageError(`${source}: ${JSON.stringify(text)} ${problem}`)
  const password = readFileSync(resolve(cwd, text), 'utf8').replace(/\r?\n$/, '')
  if (password === '') throw new UsageError(`${source}: ${JSON.stringify(text)} must have the password in it`)
  return password
}

function readFiles(url: string, find: (name: FlagName) => Given | undefined, cwd: string): SupervisorOptions['files'] {
  const given = fileNames.flatMap(name => {
    const file = find(name)
    return file ? [{ name, ...file }] : []
  })
  for (const { name, text, source } of given) {
    if (!url.startsWith('mqtts://')) throw new UsageError(`${source}: needs a --url that begins with mqtts://`)
    const partner = name === 'cert' ? 'key' : name === 'key' ? 'cert' : name
    if (!given.some(file => file.name === partner)) throw new UsageError(`${source}: needs --${partner} beside it`)
    const problem = readingProblem(resolve(cwd, text), 'file')
    if (problem !== undefined) throw new UsageError(`${source}: ${JSON.stringify(text)} ${problem}`)
  }
  return Object.fromEntries(given.map(({ name, text }) => [name, resolve(cwd, text)]))
}

function readTopic({ text, source }: Given): string {
  if (topicFilterProblem(text) === undefined && isPublishable(text) && hasNoControls(text) && !text.startsWith('$')) {
    return text
  }
  throw new UsageError(`${source}: ${JSON.stringify(text)} must be a topic, without +, #, $ and control characters`)
}

function readTimeout({ text, source }: Given): number {
  const timeout = parseDuration(text, maxTimeout)
  if (timeout !== undefined && timeout > 0) return timeout
  throw new UsageError(
    `${source}: ${JSON.stringify(text)} must be a time such as 10s or 1m, up to ${formatDuration(maxTimeout)}`,
  )
}
