import { type Event, isGapMarker } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'
import { isResponseTopic } from '../topics/response-topic.js'

/** Bytes of a payload that are kept. */
const previewSize = 256

/** Bounds of the table: topics, and UTF-16 units of their names. */
const [maxTopics, maxNames] = [1000, 2 ** 20]

/** Events at the start whose topics are in the table from the beginning, and bytes of one read. */
const [maxEarlier, readSize] = [1000, 2 ** 20]

/** Weight of the newest interval in a rate, and the shortest interval, in seconds: in a shorter one, one message is a high rate. */
const [newestWeight, shortestInterval] = [0.5, 0.5]

/** Counts and the last message of a topic. */
export interface ActiveTopic {
  readonly topic: string
  /** Messages since the start, and bytes of their payloads. */
  readonly messages: number
  readonly bytes: number
  /** Messages per second, an exponentially weighted mean. */
  readonly rate: number
  /** Of the last message, in milliseconds since 1970. */
  readonly time: number
  /** Bytes of its payload, of which `preview` has at most 256. */
  readonly size: number
  readonly preview: Uint8Array
}

type Row = { -readonly [K in keyof ActiveTopic]: ActiveTopic[K] } & { messagesBefore: number }

export interface TopicActivityOptions {
  readonly journal: Journal
  /** Milliseconds of a monotonic clock. */
  readonly now?: () => number
}

/**
 * The topics of a journal with the newest messages: how many, how fast, and the last one. It counts while somebody watches.
 *
 * Bounds: 1000 topics, and 1 MiB of names; the topic without a message for the longest time is dropped first. Topics of responses to requests are
 * left out: whoever knows one could respond.
 */
export class TopicActivity {
  readonly #journal: Journal
  readonly #now: () => number
  /** The topic with the newest message last. */
  readonly #rows = new Map<string, Row>()
  #names = 0
  #ratedAt = 0
  #watchers = 0
  #stop: (() => void) | undefined

  constructor({ journal, now = () => performance.now() }: TopicActivityOptions) {
    this.#journal = journal
    this.#now = now
  }

  /**
   * Counts from now on, beginning with the last messages of the journal, which count as none. After the last of several watchers, everything is forgotten.
   *
   * @returns ends it; idempotent
   */
  watch(): () => void {
    if (this.#watchers++ === 0) this.#start()
    let isWatching = true
    return () => {
      if (isWatching && --this.#watchers === 0) this.#forget()
      isWatching = false
    }
  }

  #start(): void {
    const { head } = this.#journal
    this.#ratedAt = this.#now()
    // Nothing is written earlier because of this.
    const unwatch = this.#journal.watch(
      events => {
        for (const event of events) this.#count(event)
      },
      () => false,
    )
    let isStopped = false
    this.#stop = () => {
      isStopped = true
      unwatch()
    }
    // The table is for information: without earlier messages, it begins empty.
    this.#addEarlier(head, () => isStopped).catch(() => {})
  }

  #forget(): void {
    this.#stop?.()
    this.#stop = undefined
    this.#rows.clear()
    this.#names = 0
  }

  /** Computes the rates since the last time, if that is half a second ago. */
  rate(): void {
    const now = this.#now()
    const seconds = (now - this.#ratedAt) / 1000
    if (seconds < shortestInterval) return
    this.#ratedAt = now
    for (const row of this.#rows.values()) {
      const newest = (row.messages - row.messagesBefore) / seconds
      const mean = newestWeight * newest + (1 - newestWeight) * row.rate
      row.rate = mean < 0.01 ? 0 : mean
      row.messagesBefore = row.messages
    }
  }

  /** The topics with the highest rates, and of equal ones those with the newest messages. @param limit maximum number */
  busiest(limit: number): readonly ActiveTopic[] {
    return [...this.#rows.values()].sort((a, b) => b.rate - a.rate || b.time - a.time).slice(0, limit)
  }

  #count({ topic, payload, time }: Event): void {
    const row = this.#rowOf(topic)
    if (!row) return
    row.messages++
    row.bytes += payload.length
    keep(row, payload, time)
  }

  /** The row of a topic, which then is the newest; `undefined` for topics that are left out. */
  #rowOf(topic: string): Row | undefined {
    let row = this.#rows.get(topic)
    if (row) this.#rows.delete(topic)
    else {
      if (isGapMarker({ topic }) || isResponseTopic(topic)) return undefined
      row = newRow(topic)
      this.#names += topic.length
    }
    this.#rows.set(topic, row)
    while (this.#rows.size > maxTopics || this.#names > maxNames) this.#dropOldest()
    return row
  }

  #dropOldest(): void {
    for (const topic of this.#rows.keys()) {
      this.#rows.delete(topic)
      this.#names -= topic.length
      return
    }
  }

  async #addEarlier(through: number, isStopped: () => boolean): Promise<void> {
    for (let after = Math.max(this.#journal.first - 1, through - maxEarlier); after < through; ) {
      const batch = await this.#journal.read({ after, through, limit: 100, maxBytes: readSize })
      if (isStopped()) return
      for (const { topic, payload, time } of batch.events) {
        const row = this.#rowOf(topic)
        if (row?.messages === 0) keep(row, payload, time)
      }
      after = Math.max(batch.position, after + 1)
    }
  }
}

function newRow(topic: string): Row {
  return { topic, messages: 0, bytes: 0, rate: 0, time: 0, size: 0, preview: nothing, messagesBefore: 0 }
}

const nothing = Buffer.alloc(0)

function keep(row: Row, payload: Buffer, time: number): void {
  row.time = time
  row.size = payload.length
  row.preview = Buffer.from(payload.subarray(0, previewSize))
}
