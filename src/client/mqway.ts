/** The client for pages without MQTT: events over whatever transport the browser has. */

import type { Client, ClientState, ConnectOptions, PushEvent, Transport } from './api.js'
import { type Attempt, type AttemptHost, startAttempt } from './attempt.js'
import { backoff } from './backoff.js'
import { createRequester } from './credentials.js'
import { Failure, type Problem } from './failure.js'
import type { Carrier, Messages } from './link.js'
import { gatewayUrl, tabStorage, watchPage } from './page.js'
import { carryByPoll, type PollResponse } from './poll.js'
import { createPosition } from './position.js'
import { createRequests, newKey } from './requests.js'
import { carryBySocket } from './socket.js'
import { carryBySse } from './sse.js'
import { canShare, shareBetweenTabs } from './tabs.js'
import { createTransportFallback } from './transport-fallback.js'

export type * from './api.js'

const carriers: Readonly<Record<Transport, Carrier>> = { socket: carryBySocket, sse: carryBySse, poll: carryByPoll }

/** After a connection of this duration, in milliseconds, failures are counted anew. */
const stableAfter = 10_000

/** A connection that the network ends sooner counts as at most this number of failures in a row. */
const soonFailures = 2

/** Maximum delay before a better transport is tried, in milliseconds. */
const maxUpgradeDelay = 600_000

/** Factor of the timeout for a better transport beside a working one, and for the last transport. */
const longTimeoutFactor = 3

/** Events queued for iterations before the client disconnects; the gateway keeps the rest. */
const maxQueued = 1000

/**
 * Subscribes to topics over a WebSocket, an event stream or long-polling, whichever works, with one cursor across all of
 * them. With `onEvent` it connects at once; otherwise with the first iteration.
 */
export function connect(options: ConnectOptions = {}): Client {
  // One function, because it is one state machine: everything below shares this state.
  const { transports = ['socket', 'sse', 'poll'], connectTimeout = 5000, upgradeAfter = 10_000, last, json } = options
  if (transports.some(each => !carriers[each])) throw new TypeError(`transports: ${transports}`)
  const { min = 500, max = 30_000 } = options.retry ?? {}
  const base = gatewayUrl(options.url)
  const requester = createRequester(base, options)
  const { share = !options.token && !options.ticket && !options.device } = options
  const isShared = share && base.protocol === 'http:' && canShare()
  const storageKey = `mqway ${base}`
  let fallback = createTransportFallback(transports, tabStorage(storageKey))
  let position = createPosition(options.cursor)
  const closer = new AbortController()
  const { signal } = closer
  /** Names the polls of this client: a newer poll replaces a hanging one. */
  const handle = newKey()
  const topics = new Set(options.topics)
  /** Topics added later, whose retained messages have not arrived. */
  const added = new Set<string>()
  /** Events for iterations, and the iterations that wait for one. */
  const queue: PushEvent[] = []
  const waiting = new Set<() => void>()

  let state: ClientState = { phase: 'idle' }
  let { device } = options
  let current: Attempt | undefined
  /** An attempt with a better transport, beside the working one. */
  let upgradeAttempt: Attempt | undefined
  /** For the next attempt, or, while connected, for the next upgrade. */
  let timer: ReturnType<typeof setTimeout>
  let upgradeDelay = upgradeAfter
  let upgrades = 0
  let failures = 0
  let unauthorized = false
  let iterations = 0

  /** Calls a callback; its errors are reported as uncaught. */
  const notify = <T>(callback: ((what: T, client: Client) => void) | undefined, what: T): void => {
    try {
      callback?.(what, client)
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }
  const setState = (next: ClientState): void => {
    state = next
    notify(options.onState, next)
  }
  const wake = (): void => {
    for (const resolve of waiting) resolve()
    waiting.clear()
  }

  /** Stops all attempts and timers. */
  const halt = (): void => {
    clearTimeout(timer)
    current?.stop()
    upgradeAttempt?.stop()
    current = upgradeAttempt = undefined
  }
  const close = (error?: Failure): void => {
    if (signal.aborted) return
    halt()
    closer.abort()
    setState({ phase: 'closed', error })
    wake()
  }
  const idle = (): void => {
    if (signal.aborted) return
    halt()
    setState({ phase: 'idle' })
  }
  const delay = (failures: number, { retryAfter }: Failure): number => Math.max(backoff(failures, min, max), retryAfter)

  const attempt = (transport: Transport, timeoutFactor: number): Attempt =>
    startAttempt(transport, carry(transport), host, connectTimeout * timeoutFactor)
  const start = (): void => {
    if (signal.aborted) return
    halt()
    const transport = fallback.current()
    current = attempt(transport, transport === 'poll' ? longTimeoutFactor : 1)
    // Last, because the callback may close the client.
    setState({ phase: 'connecting', transport, failures })
  }
  const isWanted = (): boolean =>
    // A socket is useful without topics, too: it has its own.
    (topics.size > 0 || transports.every(transport => transport === 'socket')) &&
    (options.onEvent ? true : iterations > 0 && queue.length < maxQueued)
  const begin = (): void => {
    if (state.phase === 'idle' && isWanted()) start()
  }
  const tryNow = (): void => {
    if (state.phase === 'waiting') start()
  }

  const carry =
    (transport: Transport): Carrier =>
    async link => {
      // With a cursor, the gateway sends no retained messages.
      if (added.size > 0 && position.cursor !== undefined) {
        const states: PollResponse = await link.json('v1/poll', { topic: [...added], timeout: 0, json, device })
        for (const event of states.events) if (event.retained) link.onMessage('event', event)
      }
      added.clear()
      const carry = carriers[transport]
      // Sockets are not among the six connections.
      if (!isShared || transport === 'socket') return carry(link)
      return shareBetweenTabs(carry, `${storageKey} ${transport} ${json}`)(link)
    }

  const planUpgrade = (): void => {
    clearTimeout(timer)
    const better = current ? transports.indexOf(current.transport) : 0
    if (better === 0) upgradeDelay = upgradeAfter
    else timer = setTimeout(upgrade, Math.min(upgradeDelay, maxUpgradeDelay), better)
  }
  /** Tries the better transports in turn. @param better their number */
  const upgrade = (better: number): void => {
    const transport = transports[upgrades++ % better]
    if (transport) upgradeAttempt = attempt(transport, longTimeoutFactor)
  }

  const lost = ({ openedAt }: Attempt, failure: Failure): void => {
    const { kind, reason, status, detail } = failure
    halt()
    const duration = openedAt === undefined ? -1 : Date.now() - openedAt
    if (kind === 'refused') {
      // One more attempt with fresh credentials, because the old ones may have expired.
      if (status !== 401 || unauthorized) return close(failure)
      unauthorized = true
      return start()
    }
    if (kind === 'blocked') {
      const silent = reason === 'silent'
      if ((silent || duration < 0) && fallback.failed(silent)) return start()
      if (duration >= 0) failures = Math.min(failures, soonFailures)
    }
    if (duration > stableAfter) failures = 0
    const after = delay(++failures, failure)
    timer = setTimeout(start, after)
    setState({ phase: 'waiting', reason, detail, failures, retryAt: Date.now() + after })
  }

  const handlers: { readonly [Type in keyof Messages]: (message: Messages[Type], attempt: Attempt) => void } = {
    welcome: (welcome, attempt) => {
      const { transport } = attempt
      if (attempt === upgradeAttempt) {
        current?.stop()
        current = attempt
        upgradeAttempt = undefined
      }
      unauthorized = false
      fallback.worked(transport)
      tabStorage(storageKey, transport)
      planUpgrade()
      // The first name stays for all later connections.
      device ??= welcome.device
      setState({ ...welcome, phase: 'open', transport, device })
    },
    event: event => {
      if (!position.take(event)) return
      if (options.onEvent) notify(options.onEvent, event)
      else if (queue.push(event) >= maxQueued) idle()
      wake()
    },
    gap: ({ reason, cursor, resumes }) => {
      // Two connections may report the same gap.
      if (position.cursor === resumes) return
      position = createPosition(resumes)
      notify(options.onGap, { reason, cursor, resumes })
    },
    live: ({ cursor }) => {
      if (cursor) position.take({ id: cursor })
    },
    end: problem => {
      throw new Failure('busy', problem.reason, problem)
    },
  }
  const host: AttemptHost = {
    ...requester,
    query: () => ({ topic: [...topics], cursor: position.cursor, last, json, device, handle }),
    onMessage: (attempt, type, message) => handlers[type as 'end']?.(message as Problem, attempt),
    ended: (attempt, failure) => {
      if (attempt !== upgradeAttempt) return lost(attempt, failure)
      upgradeAttempt = undefined
      upgradeDelay *= 2
      planUpgrade()
    },
  }

  watchPage(signal, online => {
    if (online) {
      fallback = createTransportFallback(transports)
      upgradeDelay = upgradeAfter
      failures = 0
      if (!upgradeAttempt) planUpgrade()
    }
    current?.check()
    tryNow()
  })

  const onTopicsChange = (): void => {
    if (isWanted()) start()
    else idle()
  }

  const client: Client = {
    get state() {
      return state
    },
    get cursor() {
      return position.cursor
    },
    get topics() {
      return [...topics]
    },
    subscribe: (...more) => {
      for (const topic of more) {
        if (topics.has(topic)) continue
        topics.add(topic)
        added.add(topic)
      }
      onTopicsChange()
    },
    unsubscribe: (...less) => {
      for (const topic of less) {
        topics.delete(topic)
        added.delete(topic)
      }
      onTopicsChange()
    },
    ...createRequests({
      sender: () => current?.sendRequest,
      post: (path, message, more) => {
        const headers = { 'content-type': 'application/json', ...more }
        return requester.json(path, { device }, { method: 'POST', headers, body: JSON.stringify(message), signal })
      },
      delay,
      closed: signal,
    }),
    async *[Symbol.asyncIterator]() {
      iterations++
      try {
        for (;;) {
          for (let event = queue.shift(); event; event = queue.shift()) yield event
          if (state.phase === 'closed') {
            if (state.error) throw state.error
            return
          }
          begin()
          await new Promise<void>(resolve => waiting.add(resolve))
        }
      } finally {
        iterations--
        if (!isWanted()) idle()
      }
    },
    tryNow,
    close: () => close(),
  }
  // After the caller has got the client.
  if (options.onEvent) queueMicrotask(begin)
  return client
}
