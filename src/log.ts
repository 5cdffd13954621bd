import { createRequire } from 'node:module'
import type { Writable } from 'node:stream'
import { type Logger, type LoggerOptions, pino, stdSerializers, stdTimeFunctions } from 'pino'

export type { Logger } from 'pino'

/** What the logger needs to know. */
export interface LogOptions {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'
  /** `auto` is `pretty` on a terminal and `json` elsewhere. */
  readonly format: 'auto' | 'pretty' | 'json'
}

/** Fields that never reach a log, however they got into one. */
const redact = ['password', '*.password', 'authorization', '*.authorization', 'req.headers', 'payload', '*.payload']

/** What clients name themselves and what they ask for, for a terminal: JSON escapes only what is below U+0020. */
const printable = (text: unknown): unknown =>
  typeof text === 'string'
    ? text.replace(/[\x7f-\x9f\u2028\u2029]/g, c => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
    : text

/** A cause may be a sentence with a header in it, which is no error to look into. */
const printableError = (error: unknown): unknown =>
  typeof error === 'string' ? printable(error) : error instanceof Error ? stdSerializers.err(error) : error

/** What clients have a say in. */
const serializers = {
  clientId: printable,
  username: printable,
  topic: printable,
  filter: printable,
  path: printable,
  err: printableError,
}

/**
 * Makes the program's logger: pino, to standard output or to `destination`.
 *
 * A connection gets a child of it with who it is (peer, path, client id, …); never a password, never a payload.
 */
export function createLog(options: LogOptions, destination?: Writable): Logger {
  const settings: LoggerOptions = {
    level: options.level,
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    serializers,
    redact: { paths: redact, censor: '[redacted]' },
  }
  const format = options.format === 'auto' ? (process.stdout.isTTY ? 'pretty' : 'json') : options.format
  if (format === 'json') return destination ? pino(settings, destination) : pino(settings)
  // Loaded where a person reads along: a service starts without.
  const pretty: typeof import('pino-pretty') = createRequire(import.meta.url)('pino-pretty')
  // `urls` repeats for programs what the message says to a person.
  const look = { colorize: process.stdout.isTTY, translateTime: 'SYS:HH:MM:ss.l', singleLine: true, ignore: 'urls' }
  return pino(settings, pretty({ ...look, sync: true, ...(destination && { destination }) }))
}
