import { GatewayError } from '../base/errors.js'
import type { Identity } from '../base/identity.js'

type Validity = Pick<Identity, 'expires' | 'revocation'>

const passwordChanged = 'the password is another one now, or none'

/** Whether an identity has expired or was revoked. @param now milliseconds since 1970 */
export function isExpired({ expires, revocation }: Validity, now = Date.now()): boolean {
  return (expires !== undefined && expires <= now) || revocation?.revoked === true
}

/**
 * Calls `expired` with `identity-expired` when an identity expires or is revoked. The timer does not keep the process alive.
 *
 * @returns a function that cancels it; idempotent
 */
export function onExpired({ expires, revocation }: Validity, expired: (error: GatewayError) => void): () => void {
  if (expires === undefined && revocation === undefined) return nothing
  const cancelTimer = onExpiry(expires, () => expired(new GatewayError('identity-expired')))
  const stopWatching = revocation?.watch(() => expired(new GatewayError('identity-expired', { hint: passwordChanged })))
  return () => {
    cancelTimer()
    stopWatching?.()
  }
}

/** Node's timers take at most 2^31-1 ms; a longer timeout would fire at once. */
const maxTimeout = 2 ** 31 - 1

/**
 * Calls `expired` at a time that may be further away than a timer reaches. The timer does not keep the process alive.
 *
 * @param expires milliseconds since 1970; `undefined` for never
 * @returns a function that cancels it; idempotent
 */
export function onExpiry(expires: number | undefined, expired: () => void): () => void {
  if (expires === undefined) return nothing
  let timer: NodeJS.Timeout
  const start = (): void => {
    const left = expires - Date.now()
    timer = left > 0 ? setTimeout(start, Math.min(left, maxTimeout)) : setTimeout(expired, 0)
    timer.unref()
  }
  start()
  return () => clearTimeout(timer)
}

function nothing(): void {}
