import { z } from 'zod'

const durationUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const sizeUnits = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, kB: 1000, MB: 1000 ** 2, GB: 1000 ** 3 }

const durationForm = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/
const sizeForm = /^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|kB|MB|GB)$/

/** Node's timers take at most 2^31-1 ms; a longer timeout would fire at once. */
const maxDuration = 2 ** 31 - 1

function parse(text: string, form: RegExp, units: Record<string, number>, largest: number): number | undefined {
  const [, amount, unit] = form.exec(text) ?? []
  const factor = units[unit ?? '']
  if (factor === undefined) return undefined
  const value = Math.round(Number(amount) * factor)
  return value <= largest ? value : undefined
}

function format(value: number, units: Record<string, number>, choice: readonly string[]): string {
  for (const unit of choice) {
    const factor = units[unit] ?? 1
    if (value !== 0 && value % factor === 0) return `${value / factor}${unit}`
  }
  return `${value}${choice.at(-1)}`
}

/**
 * Parses `30s`, `500ms`, `1.5m`, `2h` or `1d` to milliseconds; `undefined` for anything else, or for more than `max` milliseconds, by
 * default 24 days, which is the limit of a timer.
 */
export function parseDuration(text: string, max = maxDuration): number | undefined {
  return parse(text, durationForm, durationUnits, max)
}

/** Parses `64KiB`, `16MiB`, `1GB` or `512B` to bytes; `undefined` for anything else. */
export function parseSize(text: string): number | undefined {
  return parse(text, sizeForm, sizeUnits, Number.MAX_SAFE_INTEGER)
}

/** Formats milliseconds for `parseDuration`, as short as possible. */
export function formatDuration(milliseconds: number): string {
  return format(milliseconds, durationUnits, ['d', 'h', 'm', 's', 'ms'])
}

/** Formats bytes for `parseSize`, as short as possible. */
export function formatSize(bytes: number): string {
  return format(bytes, sizeUnits, ['GiB', 'MiB', 'KiB', 'B'])
}

interface Unit {
  readonly form: RegExp
  readonly min: number
  readonly max: number
  /** Description of valid values, after "must be". */
  readonly wanted: string
  readonly parse: (text: string) => number | undefined
  readonly format: (value: number) => string
}

/** A codec, so that `mqway check` can print a loaded configuration. */
function quantity({ form, min, max, wanted, parse, format }: Unit) {
  const message = `must be ${wanted}, from ${format(min)} to ${format(max)}`
  return z.codec(z.string({ error: message }).regex(form, { error: message, abort: true }), z.number(), {
    decode: (text, context) => {
      const value = parse(text)
      if (value !== undefined && value >= min && value <= max) return value
      context.issues.push({ code: 'custom', message, input: text })
      return z.NEVER
    },
    encode: format,
  })
}

/**
 * The type of a duration: a text with a unit in the file, milliseconds in the program.
 *
 * @param bounds inclusive `min` and `max`, in the syntax of the file; a timer takes 24 days at most
 */
export function duration(bounds: { min?: string; max?: string } = {}) {
  const max = parseDuration(bounds.max ?? '24d', Number.MAX_SAFE_INTEGER) ?? maxDuration
  return quantity({
    form: durationForm,
    min: parseDuration(bounds.min ?? '1ms') ?? 0,
    max,
    wanted: 'a time with its unit, such as 500ms, 30s, 5m or 1h',
    parse: text => parseDuration(text, max),
    format: formatDuration,
  })
}

/**
 * The type of a size: a text with a unit in the file, bytes in the program.
 *
 * @param bounds inclusive `min` and `max`, in the syntax of the file
 */
export function size(bounds: { min?: string; max?: string } = {}) {
  return quantity({
    form: sizeForm,
    min: parseSize(bounds.min ?? '1B') ?? 0,
    max: parseSize(bounds.max ?? '1024GiB') ?? Number.MAX_SAFE_INTEGER,
    wanted: 'a size with its unit, such as 64KiB or 16MiB',
    parse: parseSize,
    format: formatSize,
  })
}

/** The type of a file mode with which its owner may read and write: octal digits in the file, a number in the program. */
export function fileMode() {
  const error = 'must be octal digits with which its owner may connect, such as 0660 or 0666'
  // In YAML 1.2, 0660 without quotes is the number 660.
  return z.codec(z.union([z.string(), z.int()], { error }), z.int(), {
    decode: (value, context) => {
      if (/^0?[67][0-7]{2}$/.test(String(value))) return Number.parseInt(String(value), 8)
      context.issues.push({ code: 'custom', message: error, input: value })
      return z.NEVER
    },
    encode: mode => `0${mode.toString(8)}`,
  })
}
