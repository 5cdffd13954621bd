import type { Message } from '../mqtt/message.js'
import { everyTopic, type TopicPredicate, topicPredicate } from '../topics/match.js'
import { type Event, gapMarker, parseId } from './event.js'

/** Bounds of the events of one share, all at once; the oldest events beyond them are evicted. */
export interface ShareBounds {
  readonly maxEvents: number
  /** Bytes of topics, payloads and properties. */
  readonly maxBytes: number
  /** In milliseconds. */
  readonly maxAge: number
}

/** Bounds for the events of some topics. */
export interface ShareRule extends ShareBounds {
  /** Valid topic filters, at least one. */
  readonly filters: readonly string[]
}

/** Bounds of a journal; `maxEvents`, `maxBytes` and `maxAge` are for topics without a rule. */
export interface JournalBounds extends ShareBounds {
  /** Bounds of some topics; the first matching rule applies. */
  readonly rules?: readonly ShareRule[]
  /** Topics with a retained message; a message of a further topic is an event only. */
  readonly maxRetained: number
  /** Bytes of topics, payloads and properties of retained messages; a message that does not fit is an event only. */
  readonly maxRetainedBytes: number
  /** Messages that may wait to be written; further ones are refused. */
  readonly maxWaiting: number
  /** Bytes of the messages that may wait; a message of any size is accepted when none waits. */
  readonly maxWaitingBytes: number
}

export interface JournalQuery {
  /** Valid and shallow topic filters. Default: all topics, including `$` ones. */
  readonly filters?: readonly string[]
  /** Predicate of the filters, for reading many batches: compiling a thousand filters takes a millisecond. */
  readonly wanted?: TopicPredicate
  readonly after: number
  readonly through: number
  /** Maximum number of events; at least 1. */
  readonly limit: number
  /** No more events are returned once the payloads and properties have this many bytes. */
  readonly maxBytes: number
  /** Whether expired events are returned, too. Default: false; they are no loss. */
  readonly includesExpired?: boolean
  /** `Loss.evicted` of the last loss that the subscriber knows of. */
  readonly knownLosses?: readonly number[] | undefined
}

/** Eviction of events that may match some filters. */
export interface Loss {
  /** Position to continue from; events between it and `through` that are left can be read. */
  readonly resume: number
  /** After this sequence, no event is evicted. */
  readonly through: number
  /** Up to this sequence, no event is evicted beyond the known losses. */
  readonly complete: number
  /** By share of the journal: the sequence up to which its events are evicted. */
  readonly evicted: readonly number[]
}

export interface JournalBatch {
  readonly events: readonly Event[]
  /** Set where events after the requested position are evicted, beyond the known losses. */
  readonly lost?: Loss
  /** Position of the batch's begin: after the requested one if the events between are lost. */
  readonly after: number
  /** Position to continue from: after the last event where other topics follow it. */
  readonly position: number
}

/** A range of sequences, without `after` and with `through`. */
export interface SequenceRange {
  readonly after: number
  readonly through: number
}

/**
 * When a message is written: `now`, with others of the same event-loop tick, or `at leisure`, within some milliseconds, if no caller waits
 * for it and no watcher wants its topic.
 */
export type Urgency = 'now' | 'at leisure'

/**
 * Published messages as events in one order, within bounds.
 *
 * In a durable journal, each event returned by `append`, `watch` or `read` survives `kill -9`. Its id then still identifies it, or the epoch has
 * changed.
 */
export interface Journal {
  readonly epoch: string
  /** Sequence of the newest event; 0 before the first. */
  readonly head: number
  /** Sequence of the oldest event that is not evicted; `head + 1` without events. */
  readonly first: number
  readonly size: number
  /** Whether other gateways append, too. Then a client may know an event that this gateway has not read yet. */
  readonly isShared: boolean
  /** Why nothing can be appended; `undefined` while it can. */
  readonly failure: string | undefined
  /**
   * The loss of events after `after` that may match one of `filters`; `undefined` without one.
   *
   * @param knownLosses `Loss.evicted` of the last loss that the subscriber knows of
   */
  lost(filters: readonly string[] | undefined, after: number, knownLosses?: readonly number[]): Loss | undefined
  /**
   * Appends a message, or a gap marker.
   *
   * @param urgency default: `now`
   * @throws {JournalRefusal} rejects where too much waits, or writing fails
   */
  append(message: Message, urgency?: Urgency): Promise<Event>
  /**
   * Calls `listener` with all further events, in order, in the batches in which they are written. It must not throw.
   *
   * @param wants the topics that are written without delay; default: all
   * @returns removes the listener
   */
  watch(listener: (events: readonly Event[]) => void, wants?: TopicPredicate): () => void
  /** Reads a batch in bounded time. Without events but with a later position, there is more to scan. */
  read(query: JournalQuery): Promise<JournalBatch>
  /** The position before the `count` newest events that match `filters`; expired ones count. */
  latest(filters: readonly string[], count: number): Promise<number>
  /**
   * The retained messages that match `filters`, have not expired, and were appended in `range`, or after it where their event is evicted, in
   * batches, in any order.
   */
  retained(filters: readonly string[], range: SequenceRange): AsyncGenerator<readonly Event[], void, void>
  /** Evicts the events beyond the bounds, and removes expired retained messages; the journal also does so by itself. */
  trim(): Promise<void>
  /** Writes the waiting messages and closes; further messages are refused. */
  close(): Promise<void>
}

/** Why a message was refused: too many wait, writing fails, or the journal is closed. */
export type RefusalReason = 'busy' | 'unavailable' | 'closed'

const refusalTexts: Record<RefusalReason, string> = {
  busy: 'Too many messages wait to be written to the journal',
  unavailable: 'The journal cannot be written at present',
  closed: 'The journal is closed',
}

/** A message was not appended; it may be published again. */
export class JournalRefusal extends Error {
  override readonly name = 'JournalRefusal'
  readonly reason: RefusalReason

  constructor(reason: RefusalReason, cause?: unknown) {
    super(refusalTexts[reason], cause === undefined ? undefined : { cause })
    this.reason = reason
  }
}

/** Predicate of a query's topics, and of gap markers, which every query returns. */
export function queryPredicate({ filters, wanted }: Pick<JournalQuery, 'filters' | 'wanted'>): TopicPredicate {
  if (!filters) return everyTopic
  wanted ??= topicPredicate(filters)
  return topic => topic === gapMarker.topic || wanted(topic)
}

/** The readable range of a query, with its loss. A loss after `after` is returned by the read that reaches it. */
export function readableRange(
  { after, through }: JournalQuery,
  head: number,
  lost: Loss | undefined,
): SequenceRange & { readonly lost?: Loss } {
  if (lost && lost.complete <= after) {
    return { after: lost.resume, through: Math.max(lost.resume, Math.min(through, head)), lost }
  }
  return { after, through: Math.max(after, Math.min(through, head, lost?.complete ?? head)) }
}

/** Size of a message, as counted for `maxBytes`. */
export function sizeOf({ topic, payload, properties }: Pick<Message, 'topic' | 'payload' | 'properties'>): number {
  return Buffer.byteLength(topic) + payload.length + (properties?.length ?? 0)
}

/** Bytes of an event, as counted for `JournalQuery.maxBytes`. */
export function readBytes({ payload, properties }: Pick<Event, 'payload' | 'properties'>): number {
  return payload.length + (properties?.length ?? 0)
}

/** Why events after a cursor are missing. */
export type GapReason =
  /** They were evicted. */
  | 'evicted'
  /** The cursor is of a lost journal. */
  | 'other-epoch'
  /** The journal never issued the cursor. */
  | 'unknown'
  /** They could not be appended in time. */
  | 'missed'

export interface Position {
  readonly after: number
  /** The sequence up to which all events are known; 0 for none. */
  readonly known: number
  /** Left out where no event is missing between the two. */
  readonly gap?: GapReason
  /** The loss of events after `known`; left out without one. */
  readonly lost?: Loss
}

/**
 * Resolves a cursor of any text to its position, or to the oldest position where its events are missing. In a shared journal, the position may be after
 * the head.
 *
 * @param filters of the subscriber; default: all topics
 */
export function resolveCursor(
  journal: Pick<Journal, 'epoch' | 'head' | 'isShared' | 'lost'>,
  cursor: string,
  filters?: readonly string[],
): Position {
  const id = parseId(cursor)
  if (!id) return oldestPosition(journal, 'unknown', filters)
  if (id.epoch !== journal.epoch) return oldestPosition(journal, 'other-epoch', filters)
  if (id.sequence > journal.head) {
    if (!journal.isShared) return oldestPosition(journal, 'unknown', filters)
    return { after: id.sequence, known: id.sequence }
  }
  const lost = journal.lost(filters, id.sequence)
  if (lost) return { after: lost.resume, known: id.sequence, gap: 'evicted', lost }
  return { after: id.sequence, known: id.sequence }
}

function oldestPosition(
  journal: Pick<Journal, 'lost'>,
  gap: GapReason,
  filters: readonly string[] | undefined,
): Position {
  const lost = journal.lost(filters, 0)
  return lost ? { after: lost.resume, known: 0, gap, lost } : { after: 0, known: 0, gap }
}
