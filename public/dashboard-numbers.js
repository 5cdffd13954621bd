/** Numbers, times and rates as text. Pure. */

/** @param {number} value */
export function count(value) {
  return value.toLocaleString('en', { maximumFractionDigits: 0 })
}

/**
 * A rate or another small number, with three digits.
 *
 * @param {number} value
 */
export function rate(value) {
  if (value === 0) return '0'
  if (value < 0.01) return '< 0.01'
  return value.toLocaleString('en', { maximumFractionDigits: value < 1 ? 2 : value < 10 ? 1 : 0 })
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** @param {number} value */
export function bytes(value) {
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1
  return `${value.toLocaleString('en', { maximumFractionDigits: digits })} ${units[unit]}`
}

/**
 * A duration with its two largest units.
 *
 * @param {number} seconds
 */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds))
  if (whole < 60) return `${whole} s`
  const [days, hours, minutes] = [
    Math.floor(whole / 86_400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ]
  if (days > 0) return hours > 0 ? `${days} d ${hours} h` : `${days} d`
  if (hours > 0) return minutes > 0 ? `${hours} h ${minutes} min` : `${hours} h`
  return `${minutes} min`
}

/**
 * The differences of counters between two samples, per second. A counter that has fallen was restarted, and counts as none.
 *
 * @param {number} now
 * @param {number} before
 * @param {number} seconds
 */
export function perSecond(now, before, seconds) {
  return seconds > 0 ? Math.max(0, now - before) / seconds : 0
}

/**
 * The sum of the series of a metric, with these labels.
 *
 * @param {Record<string, number>} metrics series by name, as `name{label="value"}`
 * @param {string} name
 * @param {...string} labels such as `direction="in"`
 */
export function sum(metrics, name, ...labels) {
  let total = 0
  for (const [series, value] of Object.entries(metrics)) {
    const isOne = series === name || series.startsWith(`${name}{`)
    if (isOne && labels.every(label => series.includes(label))) total += value
  }
  return total
}

/**
 * The values of a metric by one of its labels.
 *
 * @param {Record<string, number>} metrics
 * @param {string} name
 * @param {string} label
 * @returns {Map<string, number>}
 */
export function byLabel(metrics, name, label) {
  const found = new Map()
  for (const [series, value] of Object.entries(metrics)) {
    if (!series.startsWith(`${name}{`)) continue
    const [, text] = new RegExp(`[{,]${label}="([^"]*)"`).exec(series) ?? []
    if (text !== undefined) found.set(text, (found.get(text) ?? 0) + value)
  }
  return found
}
