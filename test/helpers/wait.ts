/** The real timer, also in tests that simulate time. */
const { setImmediate: nextIteration, setTimeout: after } = globalThis

/**
 * Resolves once `condition` holds: checked in each iteration of the event loop, and after a while only every few
 * milliseconds, because another process may need the processor.
 */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let iterations = 0; !(await condition()); iterations++) {
    await new Promise<void>(resolve => {
      if (iterations < 1000) nextIteration(resolve)
      else after(resolve, 2)
    })
  }
}

/** Resolves once `value()` has stayed the same for many iterations of the event loop, so that no work is pending. */
export async function settled(value: () => number): Promise<void> {
  let last = -1
  for (let same = 0; same < 5000; same++) {
    await new Promise(resolve => setImmediate(resolve))
    const now = value()
    if (now !== last) same = 0
    last = now
  }
}
