import { z } from 'zod'

const durationUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const sizeUnits = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, kB: 1000, MB: 1000 ** 2, GB: 1000 ** 3 } as const

const durationForm = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/
const sizeForm = /^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|kB|MB|GB)$/

/** Node's timers count at most 2^31-1 ms; a longer wait would fire at once. */
const longestDuration = 2 ** 31 - 1

/** Milliseconds of `30s`, `500ms`, `1.5m`, `2h`, `1d`; `undefined` for anything else, or for more than 24 days. */
export function parseDuration(text: string): number | undefined {
  const match = durationForm.exec(text)
  if (!match) return undefined
  const milliseconds = Math.round(Number(match[1]) * durationUnits[match[2] as keyof typeof durationUnits])
  return milliseconds <= longestDuration ? milliseconds : undefined
}

/** Bytes of `64KiB`, `16MiB`, `1GB`, `512B`; `undefined` for anything else. */
export function parseSize(text: string): number | undefined {
  const match = sizeForm.exec(text)
  if (!match) return undefined
  const bytes = Math.round(Number(match[1]) * sizeUnits[match[2] as keyof typeof sizeUnits])
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** The shortest way to write `milliseconds` that `parseDuration` reads back. */
export function formatDuration(milliseconds: number): string {
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    if (milliseconds !== 0 && milliseconds % durationUnits[unit] === 0)
      return `${milliseconds / durationUnits[unit]}${unit}`
  }
  return `${milliseconds}ms`
}

/** The shortest way to write `bytes` that `parseSize` reads back. */
export function formatSize(bytes: number): string {
  for (const unit of ['GiB', 'MiB', 'KiB'] as const) {
    if (bytes !== 0 && bytes % sizeUnits[unit] === 0) return `${bytes / sizeUnits[unit]}${unit}`
  }
  return `${bytes}B`
}

/**
 * An option that is a time: written with its unit, read as milliseconds.
 *
 * @param bounds `min` and `max`, both inclusive, written as the user would
 */
export function duration(bounds: { min?: string; max?: string } = {}) {
  const min = parseDuration(bounds.min ?? '1ms') ?? 0
  const max = parseDuration(bounds.max ?? '24d') ?? longestDuration
  const wanted = `a time with its unit, such as 500ms, 30s, 5m or 1h, from ${formatDuration(min)} to ${formatDuration(max)}`
  return z
    .string({ error: `must be ${wanted}` })
    .regex(durationForm, { error: `must be ${wanted}`, abort: true })
    .transform(text => parseDuration(text) ?? Number.POSITIVE_INFINITY)
    .refine(milliseconds => milliseconds >= min && milliseconds <= max, { error: `must be ${wanted}` })
}

/**
 * An option that is an amount of bytes: written with its unit, read as a number of bytes.
 *
 * @param bounds `min` and `max`, both inclusive, written as the user would
 */
export function size(bounds: { min?: string; max?: string } = {}) {
  const min = parseSize(bounds.min ?? '1B') ?? 0
  const max = parseSize(bounds.max ?? '1024GiB') ?? Number.MAX_SAFE_INTEGER
  const wanted = `a size with its unit, such as 64KiB or 16MiB, from ${formatSize(min)} to ${formatSize(max)}`
  return z
    .string({ error: `must be ${wanted}` })
    .regex(sizeForm, { error: `must be ${wanted}`, abort: true })
    .transform(text => parseSize(text) ?? Number.POSITIVE_INFINITY)
    .refine(bytes => bytes >= min && bytes <= max, { error: `must be ${wanted}` })
}
