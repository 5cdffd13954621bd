/** What tests that simulate time do not replace. */
const { setImmediate: nextTurn, setTimeout: after } = globalThis

/**
 * Resolves once `condition` holds: looked at each time the event loop has turned, and, where that takes long, every few
 * milliseconds, as it may be another process that needs the processor.
 */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let turns = 0; !(await condition()); turns++) {
    await new Promise<void>(resolve => {
      if (turns < 1000) nextTurn(resolve)
      else after(resolve, 2)
    })
  }
}

/** Resolves once `value()` has stayed the same for so many turns of the event loop that everything could have moved. */
export async function settled(value: () => number): Promise<void> {
  let last = -1
  for (let same = 0; same < 5000; same++) {
    await new Promise(resolve => setImmediate(resolve))
    const now = value()
    if (now !== last) same = 0
    last = now
  }
}
