/** The client of mqway for pages that have no MQTT: events over whatever transport the browser has. */

import type { Client, ClientState, ConnectOptions, PushEvent, Transport } from './api.js'
import { type Attempt, type AttemptHost, startAttempt } from './attempt.js'
import { backoff } from './backoff.js'
import { createRequester } from './credentials.js'
import { Failure, type Problem } from './failure.js'
import type { Carrier, Messages } from './link.js'
import { gatewayUrl, tabMemory, watchPage } from './page.js'
import { carryByPoll, type PollAnswer } from './poll.js'
import { createPosition } from './position.js'
import { createRequests, newKey } from './requests.js'
import { carryBySocket } from './socket.js'
import { carryBySse } from './sse.js'
import { canShare, shareBetweenTabs } from './tabs.js'
import { createTransportFallback } from './transport-fallback.js'

export type * from './api.js'

const carriers: Readonly<Record<Transport, Carrier>> = { socket: carryBySocket, sse: carryBySse, poll: carryByPoll }

/** A connection that has lived so long, in milliseconds, was a good one: failures are counted anew. */
const goodAfter = 10_000

/** One that was lost sooner, by the network, counts as no more than so many failures in a row. */
const soonFailures = 2

/** A better transport is tried at least so often, in milliseconds. */
const upgradeAtLeast = 600_000

/** Beside a connection that works, a better one may take so many times as long; and so may the last resort. */
const longPatience = 3

/** So many events wait for whoever iterates before the client lets go of its connection: the gateway keeps the rest. */
const queueBound = 1000

/**
 * Subscribes to topics, and stays subscribed: over a WebSocket, an event stream or long-polling, whichever gets through, with
 * one cursor over all of them. With `onEvent`, it begins at once; else, when one iterates over it.
 */
export function connect(options: ConnectOptions = {}): Client {
  // One function, because it is one machine: everything in here shares the state that follows.
  const { transports = ['socket', 'sse', 'poll'], patience = 5000, upgradeAfter = 10_000, last, json } = options
  if (transports.some(each => !carriers[each])) throw new TypeError(`transports: ${transports}`)
  const { min = 500, max = 30_000 } = options.retry ?? {}
  const base = gatewayUrl(options.url)
  const requester = createRequester(base, options)
  const { share = !options.token && !options.ticket && !options.device } = options
  const isShared = share && base.protocol === 'http:' && canShare()
  const memory = `mqway ${base}`
  let ladder = createTransportFallback(transports, tabMemory(memory))
  let position = createPosition(options.cursor)
  const closer = new AbortController()
  const { signal } = closer
  /** Names the polls of this client: a newer one replaces one that hangs somewhere. */
  const handle = newKey()
  const topics = new Set(options.topics)
  /** Topics that came later, whose state has not been told. */
  const fresh = new Set<string>()
  /** What waits for those who iterate, and how to wake them. */
  const queue: PushEvent[] = []
  const sleeping = new Set<() => void>()

  let state: ClientState = { phase: 'idle' }
  let { device } = options
  let current: Attempt | undefined
  /** Tries a better transport, beside the one that works. */
  let challenger: Attempt | undefined
  /** Of the next try: of whatever works, or, once that was found, of something better. */
  let timer: ReturnType<typeof setTimeout>
  let upgradeDelay = upgradeAfter
  let upgrades = 0
  let failures = 0
  let denied = false
  let iterations = 0

  /** What is wrong in a callback is its own business, and reported as such. */
  const tell = <T>(callback: ((what: T, client: Client) => void) | undefined, what: T): void => {
    try {
      callback?.(what, client)
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }
  const become = (next: ClientState): void => {
    state = next
    tell(options.onState, next)
  }
  const wake = (): void => {
    for (const resolve of sleeping) resolve()
    sleeping.clear()
  }

  /** Lets go of everything that is under way. */
  const halt = (): void => {
    clearTimeout(timer)
    current?.stop()
    challenger?.stop()
    current = challenger = undefined
  }
  const close = (error?: Failure): void => {
    if (signal.aborted) return
    halt()
    closer.abort()
    become({ phase: 'closed', error })
    wake()
  }
  const idle = (): void => {
    if (signal.aborted) return
    halt()
    become({ phase: 'idle' })
  }
  const delay = (failures: number, { retryAfter }: Failure): number => Math.max(backoff(failures, min, max), retryAfter)

  const attempt = (transport: Transport, times: number): Attempt =>
    startAttempt(transport, carry(transport), host, patience * times)
  const start = (): void => {
    if (signal.aborted) return
    halt()
    const transport = ladder.current()
    current = attempt(transport, transport === 'poll' ? longPatience : 1)
    // Whoever is told that may close it.
    become({ phase: 'connecting', transport, failures })
  }
  const isWanted = (): boolean =>
    // A socket is of use without a topic, too: it has its own.
    (topics.size > 0 || transports.every(transport => transport === 'socket')) &&
    (options.onEvent ? true : iterations > 0 && queue.length < queueBound)
  const begin = (): void => {
    if (state.phase === 'idle' && isWanted()) start()
  }
  const tryNow = (): void => {
    if (state.phase === 'waiting') start()
  }

  const carry =
    (transport: Transport): Carrier =>
    async link => {
      // Who goes on from a cursor is told no states.
      if (fresh.size > 0 && position.cursor !== undefined) {
        const states: PollAnswer = await link.json('v1/poll', { topic: [...fresh], timeout: 0, json, device })
        for (const event of states.events) if (event.retained) link.said('event', event)
      }
      fresh.clear()
      const carry = carriers[transport]
      // Sockets do not count among the six connections.
      if (!isShared || transport === 'socket') return carry(link)
      return shareBetweenTabs(carry, `${memory} ${transport} ${json}`)(link)
    }

  const planUpgrade = (): void => {
    clearTimeout(timer)
    const better = current ? transports.indexOf(current.transport) : 0
    if (better === 0) upgradeDelay = upgradeAfter
    else timer = setTimeout(upgrade, Math.min(upgradeDelay, upgradeAtLeast), better)
  }
  /** Those that are better take turns. @param better how many there are */
  const upgrade = (better: number): void => {
    const transport = transports[upgrades++ % better]
    if (transport) challenger = attempt(transport, longPatience)
  }

  const lost = ({ openedAt }: Attempt, failure: Failure): void => {
    const { kind, reason, status, detail } = failure
    halt()
    const lived = openedAt === undefined ? -1 : Date.now() - openedAt
    if (kind === 'refused') {
      // Once more with fresh credentials: those may have expired on the way.
      if (status !== 401 || denied) return close(failure)
      denied = true
      return start()
    }
    if (kind === 'blocked') {
      const silent = reason === 'silent'
      if ((silent || lived < 0) && ladder.failed(silent)) return start()
      if (lived >= 0) failures = Math.min(failures, soonFailures)
    }
    if (lived > goodAfter) failures = 0
    const after = delay(++failures, failure)
    timer = setTimeout(start, after)
    become({ phase: 'waiting', reason, detail, failures, retryAt: Date.now() + after })
  }

  const ears: { readonly [Type in keyof Messages]: (message: Messages[Type], attempt: Attempt) => void } = {
    welcome: (welcome, attempt) => {
      const { transport } = attempt
      if (attempt === challenger) {
        current?.stop()
        current = attempt
        challenger = undefined
      }
      denied = false
      ladder.worked(transport)
      tabMemory(memory, transport)
      planUpgrade()
      // Named once, it is the same on whatever comes later.
      device ??= welcome.device
      become({ ...welcome, phase: 'open', transport, device })
    },
    event: event => {
      if (!position.take(event)) return
      if (options.onEvent) tell(options.onEvent, event)
      else if (queue.push(event) >= queueBound) idle()
      wake()
    },
    gap: ({ reason, cursor, resumes }) => {
      // Two connections may find the same one.
      if (position.cursor === resumes) return
      position = createPosition(resumes)
      tell(options.onGap, { reason, cursor, resumes })
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
    said: (attempt, type, message) => ears[type as 'end']?.(message as Problem, attempt),
    ended: (attempt, failure) => {
      if (attempt !== challenger) return lost(attempt, failure)
      challenger = undefined
      upgradeDelay *= 2
      planUpgrade()
    },
  }

  watchPage(signal, online => {
    if (online) {
      ladder = createTransportFallback(transports)
      upgradeDelay = upgradeAfter
      failures = 0
      if (!challenger) planUpgrade()
    }
    current?.check()
    tryNow()
  })

  const changed = (): void => {
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
        fresh.add(topic)
      }
      changed()
    },
    unsubscribe: (...less) => {
      for (const topic of less) {
        topics.delete(topic)
        fresh.delete(topic)
      }
      changed()
    },
    ...createRequests({
      ask: () => current?.ask,
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
          await new Promise<void>(resolve => sleeping.add(resolve))
        }
      } finally {
        iterations--
        if (!isWanted()) idle()
      }
    },
    tryNow,
    close: () => close(),
  }
  // Not before whoever called has the client.
  if (options.onEvent) queueMicrotask(begin)
  return client
}
