import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { type GivenFlag, requireFlags, UsageError } from '../../config/flags.js'
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

/** A value with its flag or variable. */
type Given = Pick<GivenFlag, 'text' | 'source'>

/** In milliseconds. supervisord itself has no timeout. */
const maxTimeout = 60 * 60 * 1000

/**
 * Reads the options of `mqway supervisor`: flags first, then variables.
 *
 * @param cwd where relative names of files begin
 * @throws {UsageError} without secrets in its message
 */
export function readSupervisorOptions(argv: readonly string[], env: NodeJS.ProcessEnv, cwd: string): SupervisorOptions {
  // Every user of the machine can read command lines.
  if (argv.some(arg => /^--password(=|$)/.test(arg))) {
    throw new UsageError('--password: is not an option; use --password-file or MQWAY_SUPERVISOR_PASSWORD')
  }
  const flags = requireFlags(argv, flagNames)
  const find = (name: FlagName): Given | undefined => {
    const flag = flags.findLast(given => given.name === name)
    if (flag?.text === '') throw new UsageError(`${flag.source}: needs a value`)
    if (flag) return flag
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
