import { createRequire } from 'node:module'
import type { Writable } from 'node:stream'
import { type Logger, type LoggerOptions, pino, stdTimeFunctions } from 'pino'

export type { Logger } from 'pino'

/** What the logger needs to know. */
export interface LogOptions {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'
  /** `auto` is `pretty` on a terminal and `json` elsewhere. */
  readonly format: 'auto' | 'pretty' | 'json'
}

/** Fields that never reach a log, however they got into one. */
const redact = ['password', '*.password', 'authorization', '*.authorization', 'req.headers', 'payload', '*.payload']

/** Longest string in a line, in UTF-16 code units: topics, client ids and errors of brokers have no bound of their own here. */
const maxLength = 1000
/** Longest message and longest stack, which hold several strings. */
const maxTextLength = 4000

/** String literals of a line of JSON, with the name of those that may be longer. */
const stringLiterals = /("(?:msg|stack)":)?("[^"\\]*(?:\\.[^"\\]*)*")/g

/** Characters that end a line, are invisible, or give a terminal orders: control and format characters (bidi overrides), separators. */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu

/** What a string literal has where an unprintable character may be in it: the character or its JSON escape. */
const suspicious = /\\[^"\\]|[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u

/**
 * Makes every string of a line printable and bounds its length, wherever it stands: message, field, nested object, stack.
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
 * Makes the program's logger: pino, to standard output or to `destination`. Each call writes exactly one line, and that is
 * printable, in both formats.
 *
 * A connection gets a child of it with who it is (peer, path, client id, …); never a password, never a payload.
 */
export function createLog(options: LogOptions, destination?: Writable): Logger {
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

/** Makes the function that turns a line of JSON into one for a person. Loaded where a person reads along. */
function prettyRenderer(): (line: string) => string {
  const { prettyFactory }: typeof import('pino-pretty') = createRequire(import.meta.url)('pino-pretty')
  const prettify = prettyFactory({
    colorize: process.stdout.isTTY,
    translateTime: 'SYS:HH:MM:ss.l',
    singleLine: true,
    // `urls` repeats for programs what the message says to a person.
    ignore: 'urls',
    // An error is in the line as any other field.
    errorLikeObjectKeys: [],
  })
  return line => String(prettify(printable(line)) ?? '')
}
