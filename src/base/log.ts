import { createRequire } from 'node:module'
import { type Logger, type LoggerOptions, pino, stdTimeFunctions } from 'pino'

export type { Logger } from 'pino'

export interface LogOptions {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'
  /** `auto` is `pretty` on a terminal and `json` elsewhere. */
  readonly format: 'auto' | 'pretty' | 'json'
}

/** Fields that are redacted in every line; `err.command` is that of Redis, with passwords and payloads. */
const redact = [
  ...['password', '*.password', 'authorization', '*.authorization', 'req.headers', 'payload', '*.payload'],
  'err.command.args',
]

/** UTF-16 code units of a string in a line, such as a topic, a client id or a broker's error. */
const maxLength = 1000
/** UTF-16 code units of a message and of a stack. */
const maxTextLength = 4000

/** String literals of a JSON line, with the names of the members that may be longer. */
const stringLiterals = /("(?:msg|stack)":)?("[^"\\]*(?:\\.[^"\\]*)*")/g

/** Control and format characters (bidi overrides) and separators: they end a line, are invisible, or control a terminal. */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu

/** An unprintable character in a string literal, or a JSON escape that may be one. */
const suspicious = /\\[^"\\]|[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u

/**
 * Makes all strings of a line printable, and truncates them: message, fields, nested objects, stack.
 *
 * @param line an object as JSON
 */
function printable(line: string): string {
  return line.replace(stringLiterals, (whole, name: string | undefined, literal: string) => {
    const max = name === undefined ? maxLength : maxTextLength
    if (literal.length <= max && !suspicious.test(literal)) return whole
    return (
      (name ?? '') + JSON.stringify(shorten(String(JSON.parse(literal)), max).replace(unprintable, escapeCharacter))
    )
  })
}

function shorten(text: string, max: number): string {
  return text.length <= max ? text : `${text.slice(0, max)}… (${text.length} characters)`
}

/** As in JavaScript: `\u000a`, and `\u{e0001}` beyond U+FFFF. */
function escapeCharacter(character: string): string {
  const code = (character.codePointAt(0) ?? 0).toString(16)
  return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, '0')}`
}

/**
 * Creates the program's logger: pino, to standard output or to `destination`. Each call writes exactly one printable line, in both
 * formats. Passwords and payloads are never logged.
 */
export function createLog(options: LogOptions, destination?: { write(line: string): unknown }): Logger {
  const format = options.format === 'auto' ? (process.stdout.isTTY ? 'pretty' : 'json') : options.format
  const render = format === 'json' ? printable : prettyRenderer()
  const settings: LoggerOptions = {
    level: options.level,
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    hooks: { streamWrite: render },
    redact: { paths: redact, censor: '[redacted]' },
  }
  return destination ? pino(settings, destination) : pino(settings)
}

/** Creates the renderer of the pretty format, whose library is loaded only here. */
function prettyRenderer(): (line: string) => string {
  const { prettyFactory }: typeof import('pino-pretty') = createRequire(import.meta.url)('pino-pretty')
  const prettify = prettyFactory({
    colorize: process.stdout.isTTY,
    translateTime: 'SYS:HH:MM:ss.l',
    singleLine: true,
    // The message has the same URLs.
    ignore: 'urls',
    // Errors are fields like others.
    errorLikeObjectKeys: [],
  })
  return line => String(prettify(printable(line)) ?? '')
}
