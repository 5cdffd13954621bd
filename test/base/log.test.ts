import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LazyLogger } from '../../src/base/connection-log.js'
import { createLog, type Logger, type LogOptions } from '../../src/base/log.js'

/** What a log writes for `write`. */
function written(format: LogOptions['format'], write: (log: ReturnType<typeof createLog>) => void): string {
  const destination = new PassThrough()
  write(createLog({ level: 'debug', format }, destination))
  return String(destination.read() ?? '')
}

/** All that a terminal or a log viewer may take for a command or for the end of a line. */
const dangerous = /(?!\n)\p{Cc}|[\u2028\u2029]/u
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u
const lines = (text: string): number => text.trimEnd().split(/[\n\r\x85\u2028\u2029]/).length

const codes = [0, 7, 8, 9, 0xa, 0xd, 0x1b, 0x7f, 0x80, 0x85, 0x9b, 0x9f, 0x2028, 0x2029]
const fields = ['clientId', 'username', 'topic', 'filter', 'path', 'err']

describe.each(['pretty', 'json'] as const)('a line of the log, %s', format => {
  it.each(codes.flatMap(code => fields.map(field => [code.toString(16).padStart(4, '0'), field] as const)))(
    'has no U+%s, which a client has put into its %s, and does not end there',
    (code, field) => {
      const value = `a${String.fromCharCode(Number.parseInt(code, 16))}[2Jb`
      const text = written(format, log => log.warn({ [field]: value }, 'told'))
      expect(text).toContain('told')
      expect(text).toMatch(new RegExp(`"?${field}"?:.*a\\\\`))
      expect(text).not.toMatch(dangerous)
      expect(lines(text)).toBe(1)
    },
  )

  it('of a connection is so, too, with what it is bound to', () => {
    const text = written(format, log => {
      const late = new LazyLogger(log, { connection: '1', clientId: 'a\x9b2Jb' })
      late.setBindings({ username: 'c\u2028d', topic: 'e\x85f' })
      late.info('bound')
      late.setBindings({ filter: 'g\x1bh' })
      late.info({ topic: 'i\u2029j' }, 'bound later')
    })
    expect(text).toMatch(/a\\+u009b2Jb/)
    expect(text).not.toMatch(dangerous)
    expect(lines(text)).toBe(2)
  })

  it('is exactly one, and printable, whatever strings it is made of', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string({
        unit: fc.constantFrom('\n', '\r', '"', '\\', 'u', '\x1b', '[', '\u202e', '\u2066', '\x85', '\ud800', '😀'),
      }),
    )
    const nested = fc.letrec(tie => ({
      value: fc.oneof({ depthSize: 'small' }, text, fc.array(tie('value')), fc.dictionary(text, tie('value'))),
    })).value
    const property = fc.property(text, nested, text, text, (message, value, cause, code) => {
      const err = Object.assign(new Error(message, { cause: new Error(cause) }), { code, value })
      for (const write of [
        (log: Logger) => log.info(message),
        (log: Logger) => log.warn({ topic: message, value }, cause),
        (log: Logger) => log.error({ err }, message),
        (log: Logger) => log.error({ err }),
        (log: Logger) => log.error(err),
        (log: Logger) => log.child({ clientId: cause, value }).debug(message),
        (log: Logger) => new LazyLogger(log, { username: cause, value }).info({ err: message }, message),
      ]) {
        const line = written(format, write)
        expect(line.endsWith('\n')).toBe(true)
        expect(line.slice(0, -1)).not.toMatch(unprintable)
        if (format === 'json') JSON.parse(line)
      }
    })
    fc.assert(property, { numRuns: 100 })
  })

  it('has no more than the beginning of a long string, and how long it is', () => {
    const text = written(format, log =>
      log.error({ topic: 'x'.repeat(65_535), err: new Error('y'.repeat(100_000)) }, 'z'.repeat(5000)),
    )
    expect(text.length).toBeLessThan(12_000)
    expect(text).toContain('… (65535 characters)')
    expect(text).toContain('… (5000 characters)')
  })

  it('has names in other scripts as they are', () => {
    expect(written(format, log => log.info({ topic: 'Grüße/日本/😀' }, 'read'))).toContain('Grüße/日本/😀')
  })

  it('has no secrets, wherever they were put', () => {
    const secrets = { password: 'S1', authorization: 'S2', payload: 'S3', connect: { password: 'S4', payload: 'S5' } }
    const text = written(format, log => log.info(secrets, 'told'))
    expect(text).not.toMatch(/S[1-5]/)
    expect(text.match(/\[redacted\]/g)).toHaveLength(5)
  })

  it('has the name of a command that Redis refuses, and not its arguments, which are passwords and payloads', () => {
    // As ioredis makes it.
    const err = Object.assign(new Error('OOM'), { command: { name: 'evalsha', args: ['S1', Buffer.from('S2')] } })
    const text = written(format, log => log.warn({ err }, 'told'))
    expect(text).toContain('evalsha')
    expect(text).not.toMatch(/S1|S2|Buffer/)
  })
})
