import type { Logger } from '../../base/log.js'
import type { TimeSlicer } from '../../base/time-slicer.js'
import { isTopicFilter } from '../../topics/topic-syntax.js'
import type { QueueExpiry } from './queue-expiry.js'
import type { QueueIndex } from './queue-index.js'
import type { Sessions } from './sessions.js'
import type { StorageBackend, StoredSession, StoredSubscription } from './storage-backend.js'
import type { FilterBounds } from './subscription-limits.js'

/** Client ids named in the log. */
const loggedIds = 5

export interface SessionLoaderOptions {
  readonly storage: StorageBackend
  readonly sessions: Pick<Sessions, 'restore' | 'has' | 'fits' | 'grow' | 'queueRoomOf' | 'restoreQueue'>
  readonly index: QueueIndex
  readonly queueExpiry: Pick<QueueExpiry, 'queued'>
  readonly slicer: TimeSlicer
  readonly limits: FilterBounds
  readonly log: Logger
}

/** Stored data beyond the bounds. */
interface LeftOut {
  sessions: number
  filters: number
  messages: number
  readonly clientIds: Set<string>
}

/**
 * Restores the sessions of an earlier run within the configured bounds, one at a time. The rest (sessions, topic filters, and the newest
 * messages of a queue) is removed from the storage and logged.
 */
export async function loadSessions(options: SessionLoaderOptions): Promise<void> {
  const { storage, sessions, slicer, log } = options
  const left: LeftOut = { sessions: 0, filters: 0, messages: 0, clientIds: new Set() }
  const beyond = sessions.restore(storage.sessions)
  for (const { id } of beyond) note(left, id)
  left.sessions = beyond.length
  if (beyond.length > 0) await storage.removeSessions(new Set(beyond.map(({ id }) => id)))
  await slicer.next()
  for await (const [id, subscriptions] of storage.allSubscriptions()) {
    if (sessions.has(id)) await loadFilters(id, subscriptions, options, left)
    if (slicer.isOver) await slicer.next()
  }
  for (const stored of storage.sessions) {
    if (stored.queued > 0 && sessions.has(stored.id)) await loadQueue(stored, options, left)
    if (slicer.isOver) await slicer.next()
  }
  if (left.clientIds.size === 0) return
  const { clientIds, ...counts } = left
  const named = [...clientIds].slice(0, loggedIds)
  log.warn(
    { ...counts, clientIds: named },
    `removed ${counts.sessions} stored sessions, ${counts.filters} filters and ${counts.messages} queued messages beyond the bounds of mqtt (maxSessions, maxSessionsPerUser, maxAnonymousSessions, maxSubscriptions, maxSubscriptionBytes, maxSessionBytes, maxSessionsBytes)`,
  )
}

async function loadFilters(
  id: string,
  stored: readonly StoredSubscription[],
  { storage, sessions, index, limits }: SessionLoaderOptions,
  left: LeftOut,
): Promise<void> {
  const kept: StoredSubscription[] = []
  for (const subscription of withinBounds(stored, limits)) {
    const bytes = index.add(id, [subscription])
    if (sessions.fits(id, bytes)) {
      sessions.grow(id, bytes)
      kept.push(subscription)
    } else index.remove(id, [subscription.topic])
  }
  if (kept.length === stored.length) return
  const filters = new Set(kept.map(({ topic }) => topic))
  const beyond = stored.map(({ topic }) => topic).filter(topic => !filters.has(topic))
  await storage.removeSubscriptions(id, beyond)
  left.filters += beyond.length
  note(left, id)
}

/** The subscriptions within the bounds of one client, which may have been higher: Aedes would refuse the client for the others. */
function withinBounds(subscriptions: readonly StoredSubscription[], limits: FilterBounds): StoredSubscription[] {
  let bytes = 0
  return subscriptions
    .filter(({ topic }) => isTopicFilter(topic, limits))
    .slice(0, limits.maxSubscriptions)
    .filter(({ topic }) => {
      bytes += Buffer.byteLength(topic)
      return bytes <= limits.maxSubscriptionBytes
    })
}

async function loadQueue(
  { id, queued, bytes, nextExpiry }: StoredSession,
  { storage, sessions, queueExpiry }: SessionLoaderOptions,
  left: LeftOut,
): Promise<void> {
  if (nextExpiry !== undefined) queueExpiry.queued(id, nextExpiry)
  const room = sessions.queueRoomOf(id)
  if (bytes <= room) {
    sessions.restoreQueue(id, { queued, bytes })
    return
  }
  const trimmed = await storage.queues.trim(id, room)
  sessions.restoreQueue(id, trimmed)
  left.messages += queued - trimmed.queued
  note(left, id)
}

function note({ clientIds }: LeftOut, id: string): void {
  if (clientIds.size < loggedIds) clientIds.add(id)
}
