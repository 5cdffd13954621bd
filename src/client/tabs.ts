import type { PushEvent } from './api.js'
import { Failure, failureFrom } from './failure.js'
import type { Carrier, Link, Messages, Welcome } from './link.js'
import type { PollAnswer } from './poll.js'
import { newKey } from './requests.js'
import { matches } from './topics.js'

/** How long a tab waits for the one that has the connection, in milliseconds; then it has one of its own. */
const maxWait = 3000

/** How long it waits at least for an answer where there are no locks, in milliseconds. */
const minElection = 300

/** Events in one answer to a poll; the most that there may be. */
const limit = 1000

/** What tabs tell each other. All but the first two come from the tab that has the connection. */
type TabMessage =
  | { readonly type: 'join'; readonly tab: string; readonly topics: readonly string[] }
  | { readonly type: 'leave'; readonly tab: string }
  /** There is another one that has it. */
  | { readonly type: 'led'; readonly tab: string }
  /** It is there, and the connection not open yet. */
  | { readonly type: 'here' }
  /** It goes. */
  | { readonly type: 'bye' }
  /** The connection is open, with these topics. */
  | { readonly type: 'open'; readonly topics: readonly string[]; readonly welcome: Welcome }
  | { readonly type: 'said'; readonly said: string; readonly message: unknown }
  /** The connection has ended, for all. */
  | { readonly type: 'end'; readonly failure: Pick<Failure, 'kind' | 'reason' | 'status' | 'detail' | 'retryAfter'> }
  /** What the others ask for is refused to the one that has it: each has to ask for itself. */
  | { readonly type: 'alone' }

type Tell = (message: TabMessage) => void

/** Whether there are tabs that can share. */
export function canShare(): boolean {
  return 'document' in globalThis && 'BroadcastChannel' in globalThis
}

/**
 * A carrier whose connection all tabs with the same `name` share: browsers open six to one host over HTTP/1.1, and a stream takes one
 * for as long as it lives. The tab that has the lock carries for all; the others ask once for what they have missed, and then hear
 * from it. When it goes, the next one has the lock. Where there are no Web Locks, as on plain HTTP beyond localhost, the tab that gets no
 * answer carries, and of two that do the one with the smaller name goes on.
 *
 * @param name of the lock and the channel: the same for tabs that ask as the same person in the same way
 */
export function shareBetweenTabs(carry: Carrier, name: string): Carrier {
  return async link => {
    const channel = new BroadcastChannel(name)
    const over = new AbortController()
    let isOpen = true
    const tell: Tell = message => {
      // Whoever is told that it is over may want to say so, too.
      if (isOpen) channel.postMessage(message)
    }
    try {
      return await new Promise<never>((_resolve, reject) => {
        link.signal.addEventListener('abort', () => reject(new Failure()), { signal: over.signal })
        const tab = newKey()
        const lead = (): boolean => {
          if (over.signal.aborted || !follower.stop()) return false
          const leader = createLeader(link, tell, carry, tab)
          channel.onmessage = ({ data }: MessageEvent<TabMessage>) => {
            if (data.type === 'led' && data.tab < tab) reject(new Failure())
            else leader.heard(data)
          }
          leader.run().catch(reject)
          return true
        }
        const { locks } = navigator as Partial<Navigator>
        const carryAlone = (): void => void carry(link).catch(reject)
        const unanswered = locks ? carryAlone : () => lead() || carryAlone()
        const follower = follow(link, {
          tell,
          tab,
          over: over.signal,
          unanswered,
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
  /** From now on it hears nothing. @returns `false` where it has a connection of its own already */
  stop(): boolean
}

interface FollowOptions {
  readonly tell: Tell
  /** Its name. */
  readonly tab: string
  readonly over: AbortSignal
  /** Whether a lock says which tab carries; else an answer does. */
  readonly isLocked: boolean
  /** Called when no tab answers. */
  unanswered(): void
  /** Called when it cannot have what the others have. */
  carryAlone(): void
  reject(error: unknown): void
}

/** Listens to the tab that has the connection. */
function follow(link: Link, options: FollowOptions): Follower {
  const { tell, tab, over, isLocked, reject } = options
  let state: 'waiting' | 'catching up' | 'live' | 'stopped' | 'alone' = 'waiting'
  let timer: ReturnType<typeof setTimeout> | undefined
  let attempts = 0
  /** Said while what was missed is asked for. */
  let held: (() => void)[] = []
  const topics = (): readonly string[] => topicsOf(link)
  const expectAnswer = (within: number): void => {
    clearTimeout(timer)
    timer = setTimeout(() => state === 'waiting' && options.unanswered(), within)
  }
  const join = (): void => {
    state = 'waiting'
    held = []
    tell({ type: 'join', tab, topics: topics() })
    // Without a lock, one of several that come at once is the first.
    expectAnswer(isLocked ? maxWait : minElection + Math.random() * minElection)
  }
  const goAlone = (): void => {
    if (state === 'stopped' || state === 'alone') return
    state = 'alone'
    leave()
    options.carryAlone()
  }
  const leave = (): void => tell({ type: 'leave', tab })
  globalThis.addEventListener('pagehide', leave, { signal: over })
  over.addEventListener('abort', () => {
    clearTimeout(timer)
    if (state !== 'stopped') leave()
    state = 'stopped'
  })
  const take = (said: string, message: unknown): void => {
    // Others asked for it, or it is news to nobody here.
    if (said === 'event' && !isFor(message as PushEvent, topics())) return
    link.said(said, message)
  }
  const catchUp = async (welcome: Welcome): Promise<void> => {
    const mine = ++attempts
    state = 'catching up'
    for (let first = true; ; first = false) {
      const { device } = welcome
      const answer: PollAnswer = await link.json('v1/poll', { ...link.query(), device, limit, timeout: 0 })
      if (state !== 'catching up' || mine !== attempts) return
      // A tab of somebody else's, who may see other things.
      if (answer.device !== device) return goAlone()
      if (first) link.said('welcome', welcome)
      if (answer.gap) link.said('gap', answer.gap)
      for (const event of answer.events) link.said('event', event)
      link.said('live', { cursor: answer.cursor })
      if (answer.events.length < limit) break
    }
    state = 'live'
    for (const say of held.splice(0)) say()
  }
  join()
  return {
    heard: message => {
      if (state === 'stopped' || state === 'alone') return
      if (state === 'waiting' && isAnswer(message)) expectAnswer(maxWait)
      if (message.type === 'led' || message.type === 'bye') join()
      else if (message.type === 'alone') goAlone()
      else if (message.type === 'end')
        reject(new Failure(message.failure.kind, message.failure.reason, message.failure))
      else if (message.type === 'open' && state === 'waiting') {
        if (topics().every(topic => message.topics.includes(topic))) catchUp(message.welcome).catch(reject)
      } else if (message.type === 'said' && state !== 'waiting') {
        const say = (): void => take(message.said, message.message)
        if (state === 'live') say()
        else held.push(say)
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
  /** Carries for all, until that ends. */
  run(): Promise<never>
}

/** Has the connection, and tells the other tabs what is said on it. */
function createLeader(link: Link, tell: Tell, carry: Carrier, tab: string): Leader {
  const members = new Map<string, readonly string[]>()
  /** What the connection was opened with. */
  let open: readonly string[] = []
  let welcome: Welcome | undefined
  let isClosed = false
  let reopen = (): void => {}

  const said: Link['said'] = (type, message, ask) => {
    if (type === 'welcome') {
      welcome = message as Welcome
      tell({ type: 'open', topics: open, welcome })
    } else if (members.size > 0 && type !== 'end' && !isState(type, message))
      tell({ type: 'said', said: type, message })
    if (type !== 'event' || isFor(message as PushEvent, topicsOf(link))) link.said(type, message, ask)
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
      said: (...what) => {
        if (!signal.aborted) said(...what)
      },
    }).catch(error => {
      if (!signal.aborted || link.signal.aborted) throw error
      return carryOnce()
    })
  }
  const run = async (): Promise<never> => {
    tell({ type: 'led', tab })
    const bye = (): void => tell({ type: 'bye' })
    link.signal.addEventListener('abort', bye)
    globalThis.addEventListener('pagehide', bye, { signal: link.signal })
    try {
      return await carryOnce()
    } catch (error) {
      const failure = failureFrom(error)
      if (failure.kind === 'refused' && members.size > 0) {
        // What one of the others asks for must not end this one.
        isClosed = true
        members.clear()
        tell({ type: 'alone' })
        return await carryOnce()
      }
      const { kind, reason, status, detail, retryAfter } = failure
      if (!link.signal.aborted)
        tell({ type: 'end', failure: { kind, reason, status, retryAfter, ...(detail && { detail }) } })
      throw failure
    }
  }
  return {
    heard: message => {
      if (message.type === 'leave') members.delete(message.tab)
      if (message.type !== 'join') return
      if (isClosed) return tell({ type: 'alone' })
      members.set(message.tab, message.topics)
      if (!message.topics.every(topic => open.includes(topic))) reopen()
      if (welcome) tell({ type: 'open', topics: open, welcome })
      else tell({ type: 'here' })
    },
    run,
  }
}

/** Whether the tab that carries is there. */
const isAnswer = ({ type }: TabMessage): boolean => type === 'here' || type === 'open' || type === 'said'

const topicsOf = (link: Link): readonly string[] => [link.query()['topic'] ?? []].flat().map(String)

const isFor = ({ topic }: PushEvent, filters: readonly string[]): boolean =>
  filters.some(filter => matches(filter, topic))

/** The state of a topic, which each tab asks for itself. */
const isState = (type: string, message: unknown): boolean =>
  type === 'event' && (message as Messages['event']).retained === true
