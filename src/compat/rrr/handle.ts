import type { Writable } from 'node:stream'
import type { RrrConfig } from '../../config/compat.js'
import { type Event, formatId } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { BatchedScan, Scanner } from './batched-scan.js'
import type { RecentPosition } from './recent-position.js'

/** More events than these are much to look through. */
const farAway = 4096

/** How often one request may take another's place with an answer at once, in milliseconds. */
const replacePause = 1000

/** What all handles share. */
export interface HandleContext {
  readonly journal: Journal
  readonly config: Pick<RrrConfig, 'maxQueued' | 'maxAge'>
  /** Where a handle begins that is asked for the first time. */
  readonly recent: RecentPosition
  /** Those who have little to look through do not wait for those who have much. */
  readonly near: BatchedScan
  readonly far: BatchedScan
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
export class Handle implements Scanner {
  readonly name: string
  readonly topic: string
  /** Requests that are open for it. */
  readers = 0
  /** The one that gets what comes. */
  reader: { replace(): void } | undefined
  /** When the last one was over. */
  usedAt = 0
  /** The user or address that asked last. */
  account = ''
  readonly #house: HandleContext
  /** Unknown until it is looked for. */
  #position: number | undefined
  /** In order. */
  #waiting: number[] = []
  #looking: Promise<void> | undefined
  #sending: Sending | undefined
  #replacedAt = Number.NEGATIVE_INFINITY

  constructor(house: HandleContext, name: string) {
    this.#house = house
    this.name = name
    this.topic = `push/${name}`
  }

  /** The place up to which the journal has been looked through. */
  get position(): number {
    return this.#position ?? 0
  }

  get cursor(): string {
    return formatId(this.#house.journal.epoch, this.position)
  }

  /**
   * The oldest message that waits; `undefined` where there is none but those after `cursor`, which the hub has. Rejects as
   * `Journal.read`.
   *
   * @param isHubsPlace whether the hub may have what comes after `cursor`; else the journal is looked through to its end
   */
  async next(isHubsPlace = true): Promise<Event | undefined> {
    if (isHubsPlace && this.#isNear()) return undefined
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
    })
    await this.#looking
    for (;;) {
      const [sequence] = this.#waiting
      if (sequence === undefined) return undefined
      const query = { filters: [this.topic], after: sequence - 1, through: sequence, limit: 1, maxBytes: 1 }
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

  found(event: Event): void {
    const { sequence } = event
    // Again, after a look that failed.
    if (sequence <= (this.#waiting.at(-1) ?? 0)) return
    if (sequence <= this.position || !this.#isFresh(event)) return
    this.#waiting.push(sequence)
    if (this.#waiting.length > this.#house.config.maxQueued) this.#waiting.shift()
  }

  /**
   * Whether so little has come since it was asked for last that none of it would have to go, for its number or for its age:
   * so it is with whoever asks again at once.
   */
  #isNear(): boolean {
    const { journal, config, now } = this.#house
    if (this.#waiting.length > 0 || this.#position === undefined || this.#looking) return false
    return now() - this.usedAt < config.maxAge && journal.head - this.#position <= config.maxQueued
  }

  /** Looks through what has come since the last time. */
  async #look(): Promise<void> {
    const { journal, recent, near, far } = this.#house
    this.#position ??= await recent.find()
    const distance = journal.head - this.#position
    if (distance > 0) await (distance > farAway ? far : near).join(this)
  }

  #isFresh({ time }: Event): boolean {
    return time >= this.#house.now() - this.#house.config.maxAge
  }
}
