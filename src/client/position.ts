import type { PushEvent } from './api.js'

/**
 * The position that all connections share, so that no event is delivered twice when connections follow each other or overlap.
 * Each connection delivers all events after its start position, in order.
 */
export interface Position {
  readonly cursor: string | undefined
  /** Moves to an event, or to the position of a connection; `false` if it is not new. */
  take(to: Pick<PushEvent, 'id'> & Partial<PushEvent>): boolean
}

export function createPosition(cursor: string | undefined): Position {
  /** Ids of delivered retained messages by topic: a connection that is lost among them starts again. */
  const retainedIds = new Map<string | undefined, string>()
  return {
    get cursor() {
      return cursor
    },
    take: ({ id, topic, retained }) => {
      if (retained) {
        if (retainedIds.get(topic) === id) return false
        retainedIds.set(topic, id)
      } else {
        if (cursor !== undefined && isKnown(id, cursor)) return false
        cursor = id
        retainedIds.clear()
      }
      return true
    },
  }
}

/** Whether `id` is at or before `position` in the same epoch. */
function isKnown(id: string, position: string): boolean {
  const [epoch, sequence] = id.split('-')
  const [ownEpoch, reached] = position.split('-')
  return epoch === ownEpoch && Number(sequence) <= Number(reached)
}
