import { networkOf } from '../access/limits.js'
import type { Caller } from '../http/api-gate.js'
import type { WorkQueue } from './work-queue.js'

/** A body of at most so many bytes is read at once: at worst within 1 ms. */
const smallBody = 16 * 1024

/**
 * Reads a body by `steps`, which yield between parts that take long: a small one at once, and a larger one in the turns of the client's
 * network, so that a hundred of them hold up nobody else.
 *
 * @throws as the steps do, or rejects with it
 */
export function readBody<T>(
  body: Buffer,
  { client }: Pick<Caller, 'client'>,
  queue: WorkQueue,
  steps: Iterator<undefined, T>,
): T | Promise<T> {
  if (body.length > smallBody) return queue.run(networkOf(client.address), steps)
  for (;;) {
    const { done, value } = steps.next()
    if (done) return value
  }
}
