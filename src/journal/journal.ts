import type { Message } from '../mqtt/message.js'
import { everyTopic, type TopicPredicate, topicPredicate } from '../topics/match.js'
import { type Event, gapMarker, parseId } from './event.js'

/** Bounds of the events of a share of a journal, all of them at once; what is over them goes, the oldest first. */
export interface ShareBounds {
  readonly maxEvents: number
  /** Bytes of topics and payloads. */
  readonly maxBytes: number
  /** In milliseconds. */
  readonly maxAge: number
}

/** Topics whose events have bounds of their own. */
export interface ShareRule extends ShareBounds {
  /** Valid topic filters, at least one. */
  readonly filters: readonly string[]
}

/** Bounds of what is kept; `maxEvents`, `maxBytes` and `maxAge` are those of all topics that have none of their own. */
export interface JournalBounds extends ShareBounds {
  /** Bounds of topics, beside those of the others; a topic has those of the first rule that matches it. */
  readonly rules?: readonly ShareRule[]
  /** How many topics may have a retained message; that of a further topic is an event and is not retained. */
  readonly maxRetained: number
  /** Bytes of the topics and payloads of retained messages; what does not fit is an event and is not retained. */
  readonly maxRetainedBytes: number
  /** Messages that may wait to be written down; a further one is refused. */
  readonly maxWaiting: number
  /** Bytes of the messages that may wait; a message that comes when none waits is taken whatever its size. */
  readonly maxWaitingBytes: number
}

/** What to read of a journal. */
export interface JournalQuery {
  /** Valid and shallow topic filters; left out for all topics, those that begin with `$` included. */
  readonly filters?: readonly string[]
  /** What they come to, for who reads one portion after the other: to make it of a thousand takes a millisecond. */
  readonly wanted?: TopicPredicate
  /** The place to read on from: the sequence of the last event that is known. */
  readonly after: number
  /** The last event that may be in the answer. */
  readonly through: number
  /** How many events the answer has at most; at least 1. */
  readonly limit: number
  /** Once the payloads have this many bytes, no more events come. */
  readonly maxBytes: number
  /** `Loss.told` of the last loss that the subscriber knows of. */
  readonly told?: readonly number[] | undefined
}

/** Tells that events which some filters may match are gone. */
export interface Loss {
  /** The sequence to read on from; what is left between it and `through` is still there to be read. */
  readonly resume: number
  /** After this sequence, nothing is gone. */
  readonly through: number
  /** Up to this sequence, nothing is gone that the subscriber has not been told of. */
  readonly complete: number
  /** By share of the journal, the sequence up to which its events are gone. */
  readonly told: readonly number[]
}

/** A part of a journal, in order. */
export interface JournalBatch {
  readonly events: readonly Event[]
  /** Set where something after the place that was asked for is gone, and the subscriber does not know it yet. */
  readonly lost?: Loss
  /** The place that the portion begins at. Later than what was asked for where all that lay between is lost. */
  readonly after: number
  /** The place to read on from. Later than the last event where what follows it is of other topics. */
  readonly position: number
}

/** A range of sequences: without the first, with the last. */
export interface SequenceRange {
  readonly after: number
  readonly through: number
}

/**
 * When a message is written: `now`, with what came in the same turn of the event loop, or `at leisure`, with others, within
 * some milliseconds, where nobody waits for it and no watcher wants its topic.
 */
export type Urgency = 'now' | 'at leisure'

/**
 * All that was published, in one order, within bounds.
 *
 * What has been told to anybody, by `append`, `watch` or `read`, survives `kill -9` where the journal is durable at all.
 * Either its id still means the same afterwards, or the epoch is another.
 */
export interface Journal {
  readonly epoch: string
  /** The sequence of the newest event; 0 before there was any. */
  readonly head: number
  /** The sequence of the oldest event that is still there; one more than `head` where there is none. */
  readonly first: number
  /** The number of events that are there. */
  readonly size: number
  /**
   * Tells whether an event after `after` is gone that one of `filters` may match.
   *
   * @param told `Loss.told` of the last loss that the subscriber knows of
   */
  lost(filters: readonly string[] | undefined, after: number, told?: readonly number[]): Loss | undefined
  /**
   * Writes a message, or a hole, down, after what came before it.
   *
   * @param urgency `now`, where it is left out
   * @throws {JournalRefusal} rejects where too much waits already, or it cannot be written
   */
  append(message: Message, urgency?: Urgency): Promise<Event>
  /**
   * Has `listener` told of all events from now on, in order, in the batches that they are written in. It must not throw.
   *
   * @param wants of which topics it is to be told without delay; of all, where this is left out
   */
  watch(listener: (events: readonly Event[]) => void, wants?: TopicPredicate): () => void
  /** Reads a portion, in bounded time. It may have no events and yet a later position: then there is more to look through. */
  read(query: JournalQuery): Promise<JournalBatch>
  /** The place from which on there are no more than the `count` newest events that `filters` match. */
  latest(filters: readonly string[], count: number): Promise<number>
  /**
   * The retained messages that `filters` match and that were written in `range`, or after it where their event is gone, in
   * portions, in any order.
   */
  retained(filters: readonly string[], range: SequenceRange): AsyncGenerator<readonly Event[], void, void>
  /** Lets go of what is over the bounds now. The journal does it by itself; this waits until it is done. */
  trim(): Promise<void>
  /** Writes down what waits, and closes. What comes after that is refused. */
  close(): Promise<void>
}

/** Why a message was not written down: too many wait for it, the disk does not take it, or the journal is closed. */
export type RefusalReason = 'busy' | 'unavailable' | 'closed'

const refusalTexts: Record<RefusalReason, string> = {
  busy: 'Too many messages wait to be written to the journal',
  unavailable: 'The journal cannot be written just now',
  closed: 'The journal is closed',
}

/** A message was not written down, and nobody was told of it. It may be published again. */
export class JournalRefusal extends Error {
  override readonly name = 'JournalRefusal'
  readonly reason: RefusalReason

  constructor(reason: RefusalReason, cause?: unknown) {
    super(refusalTexts[reason], cause === undefined ? undefined : { cause })
    this.reason = reason
  }
}

/** Which topics a query is about, and holes, which whoever reads is to come to. */
export function queryPredicate({ filters, wanted }: Pick<JournalQuery, 'filters' | 'wanted'>): TopicPredicate {
  if (!filters) return everyTopic
  wanted ??= topicPredicate(filters)
  return topic => topic === gapMarker.topic || wanted(topic)
}

/** How many bytes of `maxBytes` a message is. */
export function sizeOf({ topic, payload }: Pick<Message, 'topic' | 'payload'>): number {
  return Buffer.byteLength(topic) + payload.length
}

/** Why a cursor does not say what came after it. */
export type GapReason =
  /** It has been trimmed, and something after it. */
  | 'evicted'
  /** It is of a journal that is lost. */
  | 'other-epoch'
  /** This journal never gave it to anybody. */
  | 'unknown'
  /** It could not be written down, and the broker did not wait any longer. */
  | 'missed'

/** Where a cursor is. */
export interface Position {
  /** The sequence to read on from. */
  readonly after: number
  /** The sequence up to which somebody with this cursor knows everything; 0 for nothing. */
  readonly known: number
  /** Left out where nothing is missing between the two. */
  readonly gap?: GapReason
  /** The events that are gone after `known`; left out where there are none. */
  readonly lost?: Loss
}

/**
 * Finds the place of a cursor, whatever its text; where that is not there any more, the oldest place that is.
 *
 * @param filters of the subscriber; left out for all topics
 */
export function resolveCursor(
  journal: Pick<Journal, 'epoch' | 'head' | 'lost'>,
  cursor: string,
  filters?: readonly string[],
): Position {
  const id = parseId(cursor)
  if (!id) return oldestPlace(journal, 'unknown', filters)
  if (id.epoch !== journal.epoch) return oldestPlace(journal, 'other-epoch', filters)
  if (id.sequence > journal.head) return oldestPlace(journal, 'unknown', filters)
  const lost = journal.lost(filters, id.sequence)
  if (lost) return { after: lost.resume, known: id.sequence, gap: 'evicted', lost }
  return { after: id.sequence, known: id.sequence }
}

function oldestPlace(journal: Pick<Journal, 'lost'>, gap: GapReason, filters: readonly string[] | undefined): Position {
  const lost = journal.lost(filters, 0)
  return lost ? { after: lost.resume, known: 0, gap, lost } : { after: 0, known: 0, gap }
}
