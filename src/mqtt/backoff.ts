/** The waits between attempts, in milliseconds. */
const [first, second, longest] = [200, 1000, 30_000]

/**
 * How long to wait before the next attempt: the first comes quickly, as most brokers that go away are being restarted;
 * then 1 s, doubling up to 30 s, less up to a half at random, so that many gateways do not come back in one moment.
 *
 * @param attempts how many have failed in a row; at least 1
 * @param random 0 to 1
 */
export function backoff(attempts: number, random: number): number {
  const whole = attempts === 1 ? first : Math.min(second * 2 ** (attempts - 2), longest)
  return whole * (1 - random / 2)
}
