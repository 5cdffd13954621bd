/** Resolves once `condition` holds, looking again each time the event loop has turned. */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise(resolve => setImmediate(resolve))
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
