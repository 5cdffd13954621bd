import type { PushEvent } from './api.js'
import { Failure, failureFrom } from './failure.js'
import type { Carrier, Link, Messages, Welcome } from './link.js'
import type { PollResponse } from './poll.js'
import { newKey } from './requests.js'

/** How long a tab waits for the tab with the connection before it opens its own, in milliseconds. */
const maxWait = 3000

/** Minimum wait for a response without Web Locks, in milliseconds. */
const minElection = 300

/** Events in one response to a poll; the gateway's maximum. */
const limit = 1000

/** Messages between tabs. All but the first two come from the tab with the connection, the leader. */
type TabMessage =
  | { readonly type: 'join'; readonly tab: string; readonly topics: readonly string[] }
  | { readonly type: 'leave'; readonly tab: string }
  /** There is a new leader. */
  | { readonly type: 'led'; readonly tab: string }
  /** The leader exists, and its connection is not open yet. */
  | { readonly type: 'here' }
  /** The leader ends. */
  | { readonly type: 'bye' }
  /** The connection is open, with these topics. */
  | { readonly type: 'open'; readonly topics: readonly string[]; readonly welcome: Welcome }
  /** A message of the connection. */
  | { readonly type: 'message'; readonly name: string; readonly message: unknown }
  /** The connection has ended, for all. */
  | { readonly type: 'end'; readonly failure: Pick<Failure, 'kind' | 'reason' | 'status' | 'detail' | 'retryAfter'> }
  /** The gateway refuses the topics of the other tabs: each has to connect by itself. */
  | { readonly type: 'alone' }

type Send = (message: TabMessage) => void

/** Whether tabs can share connections. */
export function canShare(): boolean {
  return 'document' in globalThis && 'BroadcastChannel' in globalThis
}

/**
 * A carrier whose connection all tabs with the same `name` share: browsers open six connections to a host over HTTP/1.1, and a stream
 * occupies one. The tab with the lock, the leader, has the connection; the others poll once for missed events, and then get
 * messages from it. When it ends, the next tab gets the lock. Without Web Locks, as on plain HTTP beyond localhost, a tab
 * without a response becomes the leader, and of two leaders the one with the smaller name continues.
 *
 * @param name of the lock and the channel: the same for tabs with the same user and the same kind of query
 */
export function shareBetweenTabs(carry: Carrier, name: string): Carrier {
  return async link => {
    const channel = new BroadcastChannel(name)
    const over = new AbortController()
    let isOpen = true
    const send: Send = message => {
      // Listeners of the abort may send after the channel is closed.
      if (isOpen) channel.postMessage(message)
    }
    try {
      return await new Promise<never>((_resolve, reject) => {
        link.signal.addEventListener('abort', () => reject(new Failure()), { signal: over.signal })
        const tab = newKey()
        const lead = (): boolean => {
          if (over.signal.aborted || !follower.stop()) return false
          const leader = createLeader(link, send, carry, tab)
          channel.onmessage = ({ data }: MessageEvent<TabMessage>) => {
            if (data.type === 'led' && data.tab < tab) reject(new Failure())
            else leader.heard(data)
          }
          leader.run().catch(reject)
          return true
        }
        const { locks } = navigator as Partial<Navigator>
        const carryAlone = (): void => void carry(link).catch(reject)
        const onNoResponse = locks ? carryAlone : () => lead() || carryAlone()
        const follower = follow(link, {
          send,
          tab,
          over: over.signal,
          onNoResponse,
          carryAlone,
          reject,
          isLocked: !!locks,
        })
        channel.onmessage = ({ data }: MessageEvent<TabMessage>) => follower.heard(data)
        const held = (): Promise<void> | undefined =>
          lead() ? new Promise(release => over.signal.addEventListener('abort', () => release())) : undefined
        locks?.request(name, { signal: over.signal }, held).catch(() => {})
      })
    } finally {
      over.abort()
      isOpen = false
      channel.close()
    }
  }
}

interface Follower {
  heard(message: TabMessage): void
  /** Stops following. @returns `false` if it has its own connection */
  stop(): boolean
}

interface FollowOptions {
  readonly send: Send
  /** The name of the tab. */
  readonly tab: string
  readonly over: AbortSignal
  /** Whether a lock elects the leader; otherwise responses do. */
  readonly isLocked: boolean
  /** Called without a response from a leader. */
  onNoResponse(): void
  /** Called if the tab cannot share. */
  carryAlone(): void
  reject(error: unknown): void
}

/** Gets messages from the leader. */
function follow(link: Link, options: FollowOptions): Follower {
  const { send, tab, over, isLocked, reject } = options
  let state: 'waiting' | 'catching up' | 'live' | 'stopped' | 'alone' = 'waiting'
  let timer: ReturnType<typeof setTimeout> | undefined
  let attempts = 0
  /** Messages during the catch-up. */
  let queued: (() => void)[] = []
  const topics = (): readonly string[] => topicsOf(link)
  const expectResponse = (within: number): void => {
    clearTimeout(timer)
    timer = setTimeout(() => state === 'waiting' && options.onNoResponse(), within)
  }
  const join = (): void => {
    state = 'waiting'
    queued = []
    send({ type: 'join', tab, topics: topics() })
    // Without a lock, jitter elects one of several new tabs.
    expectResponse(isLocked ? maxWait : minElection + Math.random() * minElection)
  }
  const goAlone = (): void => {
    if (state === 'stopped' || state === 'alone') return
    state = 'alone'
    leave()
    options.carryAlone()
  }
  const leave = (): void => send({ type: 'leave', tab })
  globalThis.addEventListener('pagehide', leave, { signal: over })
  over.addEventListener('abort', () => {
    clearTimeout(timer)
    if (state !== 'stopped') leave()
    state = 'stopped'
  })
  const take = (name: string, message: unknown): void => {
    // Events of other tabs' topics are skipped.
    if (name === 'event' && !isFor(message as PushEvent, topics())) return
    link.onMessage(name, message)
  }
  const catchUp = async (welcome: Welcome): Promise<void> => {
    const attempt = ++attempts
    state = 'catching up'
    for (let first = true; ; first = false) {
      const { device } = welcome
      const response: PollResponse = await link.json('v1/poll', { ...link.query(), device, limit, timeout: 0 })
      if (state !== 'catching up' || attempt !== attempts) return
      // The leader belongs to another user, with other permissions.
      if (response.device !== device) return goAlone()
      if (first) link.onMessage('welcome', welcome)
      if (response.gap) link.onMessage('gap', response.gap)
      for (const event of response.events) link.onMessage('event', event)
      link.onMessage('live', { cursor: response.cursor })
      if (response.events.length < limit) break
    }
    state = 'live'
    for (const deliver of queued.splice(0)) deliver()
  }
  join()
  return {
    heard: message => {
      if (state === 'stopped' || state === 'alone') return
      if (state === 'waiting' && isResponse(message)) expectResponse(maxWait)
      if (message.type === 'led' || message.type === 'bye') join()
      else if (message.type === 'alone') goAlone()
      else if (message.type === 'end')
        reject(new Failure(message.failure.kind, message.failure.reason, message.failure))
      else if (message.type === 'open' && state === 'waiting') {
        if (topics().every(topic => message.topics.includes(topic))) catchUp(message.welcome).catch(reject)
      } else if (message.type === 'message' && state !== 'waiting') {
        const deliver = (): void => take(message.name, message.message)
        if (state === 'live') deliver()
        else queued.push(deliver)
      }
    },
    stop: () => {
      clearTimeout(timer)
      if (state === 'alone') return false
      state = 'stopped'
      return true
    },
  }
}

interface Leader {
  heard(message: TabMessage): void
  /** Runs the shared connection until its end. */
  run(): Promise<never>
}

/** Has the connection, and passes its messages to the other tabs. */
function createLeader(link: Link, send: Send, carry: Carrier, tab: string): Leader {
  const members = new Map<string, readonly string[]>()
  /** The topics of the connection. */
  let open: readonly string[] = []
  let welcome: Welcome | undefined
  let isClosed = false
  let reopen = (): void => {}

  const onMessage: Link['onMessage'] = (type, message, sendRequest) => {
    if (type === 'welcome') {
      welcome = message as Welcome
      send({ type: 'open', topics: open, welcome })
    } else if (members.size > 0 && type !== 'end' && !isState(type, message))
      send({ type: 'message', name: type, message })
    if (type !== 'event' || isFor(message as PushEvent, topicsOf(link))) link.onMessage(type, message, sendRequest)
  }
  const carryOnce = (): Promise<never> => {
    const inner = new AbortController()
    const { signal } = inner
    reopen = () => inner.abort()
    link.signal.addEventListener('abort', reopen, { signal })
    open = [...new Set([...topicsOf(link), ...[...members.values()].flat()])]
    welcome = undefined
    return carry({
      ...link,
      signal,
      query: () => ({ ...link.query(), topic: open }),
      fetch: (path, query, init) => link.fetch(path, query, { ...init, signal }),
      json: (path, query) => link.json(path, query, { signal }),
      onMessage: (...what) => {
        if (!signal.aborted) onMessage(...what)
      },
    }).catch(error => {
      if (!signal.aborted || link.signal.aborted) throw error
      return carryOnce()
    })
  }
  const run = async (): Promise<never> => {
    send({ type: 'led', tab })
    const bye = (): void => send({ type: 'bye' })
    link.signal.addEventListener('abort', bye)
    globalThis.addEventListener('pagehide', bye, { signal: link.signal })
    try {
      return await carryOnce()
    } catch (error) {
      const failure = failureFrom(error)
      if (failure.kind === 'refused' && members.size > 0) {
        // A refused topic of another tab must not end this tab's connection.
        isClosed = true
        members.clear()
        send({ type: 'alone' })
        return await carryOnce()
      }
      const { kind, reason, status, detail, retryAfter } = failure
      if (!link.signal.aborted)
        send({ type: 'end', failure: { kind, reason, status, retryAfter, ...(detail && { detail }) } })
      throw failure
    }
  }
  return {
    heard: message => {
      if (message.type === 'leave') members.delete(message.tab)
      if (message.type !== 'join') return
      if (isClosed) return send({ type: 'alone' })
      members.set(message.tab, message.topics)
      if (!message.topics.every(topic => open.includes(topic))) reopen()
      if (welcome) send({ type: 'open', topics: open, welcome })
      else send({ type: 'here' })
    },
    run,
  }
}

/** Whether a message shows that there is a leader. */
const isResponse = ({ type }: TabMessage): boolean => type === 'here' || type === 'open' || type === 'message'

const topicsOf = (link: Link): readonly string[] => [link.query()['topic'] ?? []].flat().map(String)

const isFor = ({ topic }: PushEvent, filters: readonly string[]): boolean =>
  filters.some(filter => matches(filter, topic))

/** Retained messages, which each tab requests itself. */
const isState = (type: string, message: unknown): boolean =>
  type === 'event' && (message as Messages['event']).retained === true

/**
 * Whether a topic filter matches a topic (MQTT 3.1.1 §4.7). A filter that begins with a wildcard does not match topics that
 * begin with `$` [MQTT-4.7.2-1].
 *
 * @param filter valid
 */
function matches(filter: string, topic: string): boolean {
  const levels = topic.split('/')
  const wanted = filter.split('/')
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  for (const [index, level] of wanted.entries()) {
    if (level === '#') return true
    if (index >= levels.length || (level !== '+' && level !== levels[index])) return false
  }
  return wanted.length === levels.length
}
