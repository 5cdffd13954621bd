import type { Transport } from './api.js'
import type { Query, Requester } from './credentials.js'
import { Failure, failureFrom } from './failure.js'
import type { Ask, Carrier, Welcome } from './link.js'

/** Silence of so many heartbeats is the end. */
const patientBeats = 2.5

/** What the client has to do with its attempts. */
export interface AttemptHost extends Requester {
  query(): Query
  said(attempt: Attempt, type: string, message: unknown): void
  /** It is over; said once, and not when it was stopped. */
  ended(attempt: Attempt, failure: Failure): void
}

/** One try to be connected by one transport, and what comes of it. */
export interface Attempt {
  readonly transport: Transport
  /** When it got through, in milliseconds since 1970. */
  openedAt?: number
  /** Where requests can be made over it. */
  ask?: Ask | undefined
  /** Ends it if nothing was heard for too long: a computer that has slept has slept through its timers as well. */
  check(): void
  /** Whatever it still does, nobody hears of it. Idempotent. */
  stop(): void
}

/** @param within milliseconds in which it has to get through */
export function startAttempt(transport: Transport, carrier: Carrier, host: AttemptHost, within: number): Attempt {
  const controller = new AbortController()
  const { signal } = controller
  let heardAt = Date.now()
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
    const rest = heardAt + within - Date.now()
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
    said: (type, message, ask) => {
      if (signal.aborted) return
      heardAt = Date.now()
      if (type === 'welcome') {
        attempt.openedAt = heardAt
        attempt.ask = ask
        // Every 15 s unless configured otherwise.
        within = ((message as Welcome).heartbeat ?? 15) * patientBeats * 1000
        check()
      }
      host.said(attempt, type, message)
    },
  }).catch(error => end(failureFrom(error)))
  return attempt
}
