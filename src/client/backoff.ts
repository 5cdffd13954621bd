/**
 * The delay before the next attempt: doubled after each failure, with jitter, so that clients do not all reconnect at once.
 *
 * @param failures in a row, at least 1
 * @param random from 0 to 1
 * @returns milliseconds: between half of the delay and all of it
 */
export function backoff(failures: number, min: number, max: number, random = Math.random()): number {
  return Math.min(max, min * 2 ** Math.min(failures - 1, 30)) * (0.5 + random / 2)
}
