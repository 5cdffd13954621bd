/** A signal, to be ended by its maker. */
export interface TimeLimit {
  readonly signal: AbortSignal
  /** Whether the time is over. */
  readonly isOver: boolean
  /** Releases the timer and the other signal. Idempotent. */
  end(): void
}

/**
 * Aborts after `milliseconds`, or with `other`. For this, `AbortSignal.any` with `AbortSignal.timeout` never aborts in Node.js 20 if a garbage collection comes
 * first: nothing refers to the timeout.
 */
export function timeLimit(milliseconds: number, other?: AbortSignal): TimeLimit {
  const controller = new AbortController()
  let isOver = false
  const timer = setTimeout(() => {
    isOver = true
    controller.abort(new DOMException(`not within ${milliseconds} ms`, 'TimeoutError'))
  }, milliseconds).unref()
  const onAbort = (): void => controller.abort(other?.reason)
  if (other?.aborted) onAbort()
  else other?.addEventListener('abort', onAbort, { once: true })
  return {
    signal: controller.signal,
    get isOver() {
      return isOver
    },
    end: () => {
      clearTimeout(timer)
      other?.removeEventListener('abort', onAbort)
    },
  }
}
