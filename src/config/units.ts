import { z } from 'zod'

const durationUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const sizeUnits = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, kB: 1000, MB: 1000 ** 2, GB: 1000 ** 3 }

const durationForm = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/
const sizeForm = /^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|kB|MB|GB)$/

/** Node's timers count at most 2^31-1 ms; a longer wait would fire at once. */
const longestDuration = 2 ** 31 - 1

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
 * Milliseconds of `30s`, `500ms`, `1.5m`, `2h`, `1d`; `undefined` for anything else, or for more than `longest`
 * milliseconds: 24 days unless it is not for a timer.
 */
export function parseDuration(text: string, longest = longestDuration): number | undefined {
  return parse(text, durationForm, durationUnits, longest)
}

/** Bytes of `64KiB`, `16MiB`, `1GB`, `512B`; `undefined` for anything else. */
export function parseSize(text: string): number | undefined {
  return parse(text, sizeForm, sizeUnits, Number.MAX_SAFE_INTEGER)
}

/** The shortest way to write `milliseconds` that `parseDuration` reads back. */
export function formatDuration(milliseconds: number): string {
  return format(milliseconds, durationUnits, ['d', 'h', 'm', 's', 'ms'])
}

/** The shortest way to write `bytes` that `parseSize` reads back. */
export function formatSize(bytes: number): string {
  return format(bytes, sizeUnits, ['GiB', 'MiB', 'KiB', 'B'])
}

interface Unit {
  readonly form: RegExp
  readonly min: number
  readonly max: number
  /** What would be right, after "must be". */
  readonly wanted: string
  readonly parse: (text: string) => number | undefined
  readonly format: (value: number) => string
}

/** A codec and not a transform, so that `mqway check` can write a loaded configuration down again. */
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
 * An option that is a time: written with its unit, read as milliseconds.
 *
 * @param bounds `min` and `max`, both inclusive, written as the user would
 */
export function duration(bounds: { min?: string; max?: string } = {}) {
  return quantity({
    form: durationForm,
    min: parseDuration(bounds.min ?? '1ms') ?? 0,
    max: parseDuration(bounds.max ?? '24d') ?? longestDuration,
    wanted: 'a time with its unit, such as 500ms, 30s, 5m or 1h',
    parse: text => parseDuration(text),
    format: formatDuration,
  })
}

/**
 * An option that is an amount of bytes: written with its unit, read as a number of bytes.
 *
 * @param bounds `min` and `max`, both inclusive, written as the user would
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

/** An option that is the mode of a file with which its owner may read and write: written as octal digits, read as a number. */
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
