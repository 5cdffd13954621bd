import type { Transport } from './api.js'
import type { Query, Requester } from './credentials.js'
import { Failure, failureFrom } from './failure.js'
import type { Carrier, SendRequest, Welcome } from './link.js'

/** Heartbeat intervals of silence after which the connection ends. */
const maxSilentBeats = 2.5

export interface AttemptHost extends Requester {
  query(): Query
  onMessage(attempt: Attempt, type: string, message: unknown): void
  /** Called once at its end, and not after `stop`. */
  ended(attempt: Attempt, failure: Failure): void
}

/** One attempt to connect with one transport, and the connection that follows. */
export interface Attempt {
  readonly transport: Transport
  /** When it connected, in milliseconds since 1970. */
  openedAt?: number
  /** Sends requests over the connection, if the transport can. */
  sendRequest?: SendRequest | undefined
  /** Ends it after too long a silence. Called after the computer may have slept, because timers sleep, too. */
  check(): void
  /** Ends it without a callback. Idempotent. */
  stop(): void
}

/** @param within timeout to connect, in milliseconds */
export function startAttempt(transport: Transport, carrier: Carrier, host: AttemptHost, within: number): Attempt {
  const controller = new AbortController()
  const { signal } = controller
  let receivedAt = Date.now()
  let timer: ReturnType<typeof setTimeout>

  const stop = (): void => {
    clearTimeout(timer)
    controller.abort()
  }
  const end = (failure: Failure): void => {
    if (signal.aborted) return
    stop()
    host.ended(attempt, failure)
  }
  const check = (): void => {
    clearTimeout(timer)
    const rest = receivedAt + within - Date.now()
    if (rest <= 0) end(new Failure('blocked', 'silent'))
    else if (!signal.aborted) timer = setTimeout(check, rest)
  }

  const attempt: Attempt = { transport, check, stop }
  check()
  carrier({
    ...host,
    signal,
    fetch: (path, query, init) => host.fetch(path, query, { signal, ...init }),
    json: (path, query, init) => host.json(path, query, { signal, ...init }),
    onMessage: (type, message, sendRequest) => {
      if (signal.aborted) return
      receivedAt = Date.now()
      if (type === 'welcome') {
        attempt.openedAt = receivedAt
        attempt.sendRequest = sendRequest
        // The default of `push.heartbeat` is 15 s.
        within = ((message as Welcome).heartbeat ?? 15) * maxSilentBeats * 1000
        check()
      }
      host.onMessage(attempt, type, message)
    },
  }).catch(error => end(failureFrom(error)))
  return attempt
}
