import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { closest } from 'fastest-levenshtein'
import { ownPeer } from '../broker/broker.js'
import { createUpstream } from '../broker/upstream.js'
import { parseBrokerUrl } from '../config/forms.js'
import { upstreamAt } from '../config/schema.js'
import { topicFilterProblem } from '../config/topic-filters.js'
import { formatDuration, parseDuration } from '../config/units.js'
import { createLog, type Logger } from '../log.js'
import { makeClientId } from '../push/session/client-id.js'
import { Connection, ConnectionRefusal } from '../push/session/connection.js'
import { type Dialect, mqtt5, plain } from '../push/session/dialect.js'
import { isPublishable } from '../push/session/publishable.js'
import { StartError } from '../start-error.js'
import { Delivery } from '../supervisor/delivery.js'
import { ProtocolError } from '../supervisor/event-reader.js'
import { listen } from '../supervisor/listener.js'
import { StatePublisher } from '../supervisor/state-publisher.js'

const flagNames = ['url', 'password-file', 'ca', 'cert', 'key', 'topic', 'timeout'] as const
type FlagName = (typeof flagNames)[number]

interface Wanted {
  /** Without a user name. */
  readonly url: string
  readonly username: string | undefined
  readonly password: string | undefined
  readonly files: { readonly ca?: string; readonly cert?: string; readonly key?: string }
  readonly topic: string
  /** In milliseconds. */
  readonly timeout: number
}

/** In milliseconds. supervisord waits for an answer as long as it takes. */
const longestTimeout = 60 * 60 * 1000
/** How long the broker may take to open a connection, and then for CONNACK; in milliseconds. */
const connectTimeout = 5000
/** In seconds. */
const keepAlive = 30
/** What is under way when it is told to stop has this long, in milliseconds. supervisord waits for 10 s. */
const stopTime = 1000

/** Something on the command line or in the environment is not right; the message says what would be. */
class UsageError extends Error {
  override readonly name = 'UsageError'
}

/**
 * `mqway supervisor`: an event listener of supervisord, which publishes the states of its processes. Standard output is
 * for supervisord; everything else goes to standard error.
 *
 * @returns exit code 0 when supervisord closes its side, or tells it to stop; 1 when supervisord says what is not of its
 *   protocol; 2 when a flag is not right; 69 when a certificate cannot be read
 */
export async function supervisor(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  try {
    const wanted = readWanted(argv, env)
    if (process.stdin.isTTY) throw new UsageError('is started by supervisord; see mqway supervisor --help')
    await run(wanted)
    return 0
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof StartError || error instanceof ProtocolError)) throw error
    process.stderr.write(`mqway supervisor: ${error.message}\n`)
    if (error instanceof StartError) return error.exitCode
    return error instanceof UsageError ? 2 : 1
  }
}

async function run(wanted: Wanted): Promise<void> {
  const log = createLog({ level: 'info', format: process.stderr.isTTY ? 'pretty' : 'json' }, process.stderr)
  const upstream = createUpstream({ ...upstreamAt(wanted.url), ...wanted.files, connectTimeout }, log)
  const connect = connector(wanted, () => upstream.open(ownPeer))
  const delivery = new Delivery({ connect, timeout: wanted.timeout, log })
  const states = new StatePublisher({
    prefix: wanted.topic,
    deliver: messages => delivery.deliver(messages),
    warn: text => log.warn(text),
  })
  const stop = watchStop(log, () => {
    setTimeout(() => delivery.close(), stopTime).unref()
    // Ends the wait for the next event.
    process.stdin.destroy()
  })
  try {
    await listen({
      input: process.stdin,
      write: text => process.stdout.write(text),
      handle: event => states.publish(event),
      stopped: () => stop.stopped,
    })
  } catch (error) {
    if (!stop.stopped) throw error
  } finally {
    stop.close()
    process.stdin.destroy()
    await delivery.close()
    await upstream.close()
  }
}

function watchStop(log: Logger, onStop: () => void): { readonly stopped: boolean; close(): void } {
  const watch = {
    stopped: false,
    close: () => {
      process.off('SIGTERM', stop).off('SIGINT', stop)
    },
  }
  const stop = (signal: NodeJS.Signals): void => {
    if (watch.stopped) return
    watch.stopped = true
    log.info({ signal }, 'stopping')
    onStop()
  }
  process.on('SIGTERM', stop).on('SIGINT', stop)
  return watch
}

/** MQTT 5 says what it refuses; a broker that does not speak it gets MQTT 3.1.1. */
function connector(
  { username, password }: Wanted,
  open: () => ReturnType<ReturnType<typeof createUpstream>['open']>,
): () => Promise<Connection> {
  // supervisord may have several of its kind.
  const clientId = `${makeClientId(undefined)}-${randomBytes(2).toString('hex')}`
  const attempt = async (dialect: Dialect): Promise<Connection> => {
    const stream = await open()
    return Connection.connect({ stream, dialect, clientId, clean: true, username, password, keepAlive, connectTimeout })
  }
  let dialect = mqtt5
  return async () => {
    try {
      return await attempt(dialect)
    } catch (error) {
      if (dialect === plain || !(error instanceof ConnectionRefusal && error.mayBeDialect)) throw error
      const connection = await attempt(plain)
      dialect = plain
      return connection
    }
  }
}

function readWanted(argv: readonly string[], env: NodeJS.ProcessEnv): Wanted {
  const given = readFlags(argv)
  const variable = (name: FlagName | 'password'): string => `MQWAY_SUPERVISOR_${name.toUpperCase().replace('-', '_')}`
  const find = (name: FlagName): { readonly text: string; readonly source: string } | undefined => {
    const flag = given.get(name)
    if (flag !== undefined) return { text: flag, source: `--${name}` }
    const text = env[variable(name)]
    return text ? { text, source: variable(name) } : undefined
  }
  const { url, username } = readUrl(find('url') ?? { text: 'mqtt://127.0.0.1:1883', source: '--url' })
  const files = Object.fromEntries(
    (['ca', 'cert', 'key'] as const).flatMap(name => {
      const file = find(name)
      return file ? [[name, file.text]] : []
    }),
  )
  const passwordFile = find('password-file')
  const password = passwordFile ? readPassword(passwordFile) : env[variable('password')] || undefined
  if (password !== undefined && username === undefined) {
    throw new UsageError('--url: needs a user name where there is a password: mqtt://user@host:port')
  }
  const topic = find('topic') ?? { text: 'supervisor', source: '--topic' }
  if (topicFilterProblem(topic.text) !== undefined || !isPublishable(topic.text) || topic.text.startsWith('$')) {
    throw new UsageError(`${topic.source}: ${JSON.stringify(topic.text)} must be a topic, without +, # and $`)
  }
  const timeout = find('timeout') ?? { text: '10s', source: '--timeout' }
  return { url, username, password, files, topic: topic.text, timeout: readTimeout(timeout) }
}

function readFlags(argv: readonly string[]): Map<string, string> {
  const options = Object.fromEntries(flagNames.map(name => [name, { type: 'string' as const }]))
  const { tokens } = parseArgs({ args: [...argv], options, strict: false, allowPositionals: true, tokens: true })
  const given = new Map<string, string>()
  for (const token of tokens) {
    if (token.kind === 'positional') throw new UsageError(`${token.value}: is not expected here; options begin with --`)
    if (token.kind !== 'option') continue
    // On a command line, everybody on the machine can read it.
    if (token.name === 'password') {
      throw new UsageError('--password: is not an option; use --password-file or MQWAY_SUPERVISOR_PASSWORD')
    }
    if (!flagNames.some(name => name === token.name)) {
      throw new UsageError(`${token.rawName}: is not an option; did you mean --${closest(token.name, flagNames)}?`)
    }
    if (token.value === undefined || (!token.inlineValue && /^-./.test(token.value))) {
      throw new UsageError(`${token.rawName}: needs a value`)
    }
    given.set(token.name, token.value)
  }
  return given
}

interface Given {
  readonly text: string
  /** The flag or the variable. */
  readonly source: string
}

/** Not repeated in the messages: there may be a password in it. */
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

function readPassword({ text, source }: Given): string {
  try {
    return readFileSync(text, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    throw new UsageError(`${source}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function readTimeout({ text, source }: Given): number {
  const timeout = parseDuration(text, longestTimeout)
  if (timeout !== undefined && timeout > 0) return timeout
  throw new UsageError(
    `${source}: ${JSON.stringify(text)} must be a time such as 10s or 1m, up to ${formatDuration(longestTimeout)}`,
  )
}
