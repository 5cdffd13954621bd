/** Node's timers count at most 2^31-1 ms; a longer wait would fire at once. */
const longestWait = 2 ** 31 - 1

/**
 * Calls `expired` at a time, however far away it is. It does not keep the process alive.
 *
 * @param expires in milliseconds since 1970; `undefined` for never
 * @returns what takes it back; calling it again does nothing
 */
export function onExpiry(expires: number | undefined, expired: () => void): () => void {
  if (expires === undefined) return () => {}
  let timer: NodeJS.Timeout
  const wait = (): void => {
    const left = expires - Date.now()
    timer = left > 0 ? setTimeout(wait, Math.min(left, longestWait)) : setTimeout(expired, 0)
    timer.unref()
  }
  wait()
  return () => clearTimeout(timer)
}
