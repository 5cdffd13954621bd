/**
 * The delay before the next attempt: exponential, with jitter, so that a thousand pages do not reconnect in the same
 * second. Pure.
 */

const FIRST_MS = 1_000
const LONGEST_MS = 30_000

/**
 * @param {number} failures tries that failed in a row, from 1
 * @param {() => number} [random] between 0 and 1
 * @returns {number} milliseconds; between half of the exponential step and all of it, never above 30 s
 */
export function backoff(failures, random = Math.random) {
  const step = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 10))
  return Math.round(step / 2 + (random() * step) / 2)
}
