/** The real timer, also in tests that simulate time. */
const { setImmediate: nextIteration, setTimeout: after } = globalThis

/**
 * Resolves once `condition` holds: checked in each iteration of the event loop, and after a while only every few
 * milliseconds, because another process may need the processor. A condition that is a promise, such as a request, takes
 * more of it, and is checked less often.
 */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let iterations = 0; ; iterations++) {
    const holds = condition()
    if (await holds) return
    const [most, pause] = typeof holds === 'boolean' ? [500, 2] : [5, 10]
    await new Promise<void>(resolve => {
      if (iterations < most) nextIteration(resolve)
      else after(resolve, pause)
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
