/**
 * How long to wait before the next try: twice as long after each failure, and each client a time of its own, so that a
 * gateway that comes back is not met by all of them at once.
 *
 * @param failures in a row, from 1 on
 * @param random from 0 to 1
 * @returns milliseconds: from half of it to all of it
 */
export function backoff(failures: number, min: number, max: number, random = Math.random()): number {
  return Math.min(max, min * 2 ** Math.min(failures - 1, 30)) * (0.5 + random / 2)
}
