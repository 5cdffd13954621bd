import type { Writable } from 'node:stream'
import type { RrrConfig } from '../../config/compat.js'
import { type Event, formatId, isHole } from '../../push/event.js'
import type { Journal } from '../../push/journal.js'
import type { RecentPlace } from './recent-place.js'

/** What is read of the journal in one go. */
const portion = { limit: 256, maxBytes: 256 * 1024 }

/** How often one request may take another's place with an answer at once, in milliseconds. */
const replacePause = 1000

/** What all handles share. */
export interface HandleHouse {
  readonly journal: Journal
  readonly config: Pick<RrrConfig, 'maxQueued' | 'maxAge'>
  /** Where a handle begins that is asked for the first time. */
  readonly recent: RecentPlace
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** An answer that is being written. */
interface Sending {
  readonly sequence: number
  readonly answer: Pick<Writable, 'once' | 'destroy'>
}

/**
 * What waits for one handle: a place in the journal up to which it has been looked through, and the sequences of what was
 * found there and is not delivered. Messages themselves are in the journal alone.
 */
export class Handle {
  readonly name: string
  readonly topic: string
  /** Requests that are open for it. */
  readers = 0
  /** The one that gets what comes. */
  reader: { replace(): void } | undefined
  /** When the last one was over. */
  usedAt = 0
  readonly #house: HandleHouse
  #position: number | undefined
  /** In order. */
  #waiting: number[] = []
  #looking: Promise<void> | undefined
  #sending: Sending | undefined
  #replacedAt = Number.NEGATIVE_INFINITY

  constructor(house: HandleHouse, name: string) {
    this.#house = house
    this.name = name
    this.topic = `push/${name}`
  }

  /** The place up to which it has been looked through. */
  get cursor(): string {
    return formatId(this.#house.journal.epoch, this.#position ?? 0)
  }

  /** The oldest message that waits; `undefined` for none. Rejects as `Journal.read`. */
  async next(): Promise<Event | undefined> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
    })
    await this.#looking
    for (;;) {
      const [sequence] = this.#waiting
      if (sequence === undefined) return undefined
      const query = { filters: [this.topic], after: sequence - 1, through: sequence, ...portion }
      const [event] = (await this.#house.journal.read(query)).events
      if (event && event.sequence === sequence && this.#isFresh(event)) return event
      if (this.#waiting[0] === sequence) this.#waiting.shift()
    }
  }

  /**
   * A request has taken the place of another.
   *
   * @returns milliseconds to wait with the other's answer: two pages with one handle would chase each other as fast as they
   *   can, as each asks again at once
   */
  replaced(): number {
    const now = performance.now()
    const wait = Math.max(0, this.#replacedAt + replacePause - now)
    if (wait === 0) this.#replacedAt = now
    return wait
  }

  /** Nothing for it is before this place. */
  advance(sequence: number): void {
    this.#position = Math.max(this.#position ?? 0, sequence)
  }

  /** Has a message taken off when the answer with it is written; where the connection is gone before, it stays. */
  sending(sequence: number, answer: Sending['answer']): void {
    const sending: Sending = { sequence, answer }
    this.#sending = sending
    const settled = (isWritten: boolean): void => {
      if (this.#sending !== sending) return
      this.#sending = undefined
      if (isWritten) this.#delivered(sequence)
    }
    answer.once('finish', () => settled(true))
    answer.once('close', () => settled(false))
  }

  /** Breaks an answer off that is still being written, because the next request has come. */
  async interrupt(): Promise<void> {
    if (!this.#sending) return
    // It may have been written, and be told next.
    await new Promise(setImmediate)
    this.#sending?.answer.destroy()
    this.#sending = undefined
  }

  #delivered(sequence: number): void {
    this.#waiting = this.#waiting.filter(other => other !== sequence)
    this.advance(sequence)
  }

  /** Looks through what has come since the last time. */
  async #look(): Promise<void> {
    const { journal, recent, config } = this.#house
    this.#position ??= await recent.find()
    const through = journal.head
    while (this.#position < through) {
      const query = { filters: [this.topic], after: this.#position, through, ...portion }
      const { events, position } = await journal.read(query)
      for (const event of events) {
        if (event.sequence > this.#position && !isHole(event) && this.#isFresh(event))
          this.#waiting.push(event.sequence)
      }
      if (this.#waiting.length > config.maxQueued) this.#waiting = this.#waiting.slice(-config.maxQueued)
      this.advance(position)
      // A journal in memory answers in the same turn of the event loop.
      await new Promise(setImmediate)
    }
  }

  #isFresh({ time }: Event): boolean {
    return time >= this.#house.now() - this.#house.config.maxAge
  }
}
