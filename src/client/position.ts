import type { PushEvent } from './api.js'

/**
 * The one place in the order of events that all connections share, so that nothing comes twice where one follows another, or
 * two overlap: each of them delivers everything after the place that it began at, in order.
 */
export interface Position {
  readonly cursor: string | undefined
  /** Takes an event, or the place that a connection says it has reached; `false` where it is known already. */
  take(place: Pick<PushEvent, 'id'> & Partial<PushEvent>): boolean
}

export function createPosition(cursor: string | undefined): Position {
  /** What was told of states, by topic: a connection that is lost in the middle of them begins anew. */
  const told = new Map<string | undefined, string>()
  return {
    get cursor() {
      return cursor
    },
    take: ({ id, topic, retained }) => {
      if (retained) {
        if (told.get(topic) === id) return false
        told.set(topic, id)
      } else {
        if (cursor !== undefined && isKnown(id, cursor)) return false
        cursor = id
        told.clear()
      }
      return true
    },
  }
}

/** Whether `id` is not after `place`: within an epoch, sequences grow; of another one, nobody knows, and it is news. */
function isKnown(id: string, place: string): boolean {
  const [epoch, sequence] = id.split('-')
  const [ownEpoch, reached] = place.split('-')
  return epoch === ownEpoch && Number(sequence) <= Number(reached)
}
