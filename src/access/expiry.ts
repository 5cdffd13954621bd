import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'

/** What can end an identity. */
type Bounds = Pick<Identity, 'expires' | 'revocation'>

const passwordGone = 'the password is another one now, or none'

/** Whether it holds no longer. `now` is in milliseconds since 1970. */
export function isOver({ expires, revocation }: Bounds, now = Date.now()): boolean {
  return (expires !== undefined && expires <= now) || revocation?.revoked === true
}

/**
 * Calls `over` with `identity-expired` when an identity holds no longer. It does not keep the process alive.
 *
 * @returns what takes it back; calling it again does nothing
 */
export function onOver({ expires, revocation }: Bounds, over: (ending: GatewayError) => void): () => void {
  if (expires === undefined && revocation === undefined) return nothing
  const stopWaiting = onExpiry(expires, () => over(new GatewayError('identity-expired')))
  const stopWatching = revocation?.watch(() => over(new GatewayError('identity-expired', { hint: passwordGone })))
  return () => {
    stopWaiting()
    stopWatching?.()
  }
}

/** Node's timers count at most 2^31-1 ms; a longer wait would fire at once. */
const longestWait = 2 ** 31 - 1

/**
 * Calls `expired` at a time, however far away it is. It does not keep the process alive.
 *
 * @param expires in milliseconds since 1970; `undefined` for never
 * @returns what takes it back; calling it again does nothing
 */
export function onExpiry(expires: number | undefined, expired: () => void): () => void {
  if (expires === undefined) return nothing
  let timer: NodeJS.Timeout
  const wait = (): void => {
    const left = expires - Date.now()
    timer = left > 0 ? setTimeout(wait, Math.min(left, longestWait)) : setTimeout(expired, 0)
    timer.unref()
  }
  wait()
  return () => clearTimeout(timer)
}

function nothing(): void {}
