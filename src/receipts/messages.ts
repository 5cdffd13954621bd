import { isWithinBounds, type TopicBounds } from '../topics/topic-syntax.js'
import type { BatchedStore } from './batched-store.js'
import { allOf, iso, keyOf, type MessageRecord, type RepositoryState, type RequestRecord, upTo } from './records.js'

/** Bounds of the messages about receipts. */
export interface MessageBounds {
  /** Messages that may wait for the broker; the oldest go first. */
  readonly maxMessages: number
  /** Asked before each message about a receipt that nobody waits for; there are any number where it is left out. */
  readonly mayTell?: (() => boolean) | undefined
  /** How large a topic the broker takes: a larger one could end the session that all publish with. In bytes. */
  readonly topic: TopicBounds
}

/** A message that waits to be published. */
export interface WaitingMessage extends MessageRecord {
  readonly key: string
}

/** Devices that one message names, and UTF-16 units of theirs, so that it stays far below what brokers take. */
const [devicesPerMessage, textPerMessage] = [500, 32 * 1024]

const topicPrefix = 'receipts/'

/** The messages about receipts that wait to be published. Each change is collected, and of the state that is given back. */
export class ReceiptMessages {
  readonly #store: BatchedStore
  readonly #bounds: MessageBounds
  /** How many were let go of because too many waited. */
  dropped = 0

  constructor(store: BatchedStore, bounds: MessageBounds) {
    this.#store = store
    this.#bounds = bounds
  }

  /** Whether a receipt that nobody waits for is told: those that are waited for find room among the messages. */
  mayTell({ messages }: RepositoryState): boolean {
    const { maxMessages, mayTell } = this.#bounds
    return messages < maxMessages / 2 && mayTell?.() !== false
  }

  /** Adds a message about an event on `topic`. About messages on receipts there are none, or there would be no end. */
  tell(state: RepositoryState, topic: string, what: object, group: string): RepositoryState {
    if (topic.startsWith(topicPrefix)) return state
    if (!isWithinBounds(topicPrefix + topic, this.#bounds.topic)) return state
    const message: MessageRecord = { topic: topicPrefix + topic, payload: JSON.stringify(what), group }
    this.#store.put(keyOf('m', state.message), message)
    return { ...state, messages: state.messages + 1, message: state.message + 1 }
  }

  /** Adds messages about those that have missed a deadline. */
  tellMissed(
    state: RepositoryState,
    { id, topic, deadline }: RequestRecord,
    missed: readonly string[],
  ): RepositoryState {
    for (let at = 0; at < missed.length; ) {
      const devices = upTo(missed.slice(at, at + devicesPerMessage), textPerMessage, device => device.length)
      state = this.tell(state, topic, { type: 'missed', id, topic, devices, deadline: iso(deadline) }, id)
      at += devices.length
    }
    return state
  }

  /** Lets go of those that have waited longest, where there are too many. */
  async dropOldest(state: RepositoryState): Promise<RepositoryState> {
    const over = state.messages - this.#bounds.maxMessages
    if (over <= 0) return state
    const oldest = await this.#store.range(allOf('m'), over)
    for (const [key] of oldest) this.#store.delete(key)
    this.dropped += oldest.length
    return { ...state, messages: state.messages - oldest.length }
  }

  /** Those that have waited longest. */
  async waiting(limit: number): Promise<WaitingMessage[]> {
    const entries = await this.#store.range(allOf('m'), limit)
    return entries.map(([key, value]) => ({ key, ...(JSON.parse(value) as MessageRecord) }))
  }

  /** Lets go of those that are published. */
  async sent(state: RepositoryState, keys: readonly string[]): Promise<RepositoryState> {
    let { messages } = state
    for (const key of keys) {
      if (!(await this.#store.has(key))) continue
      this.#store.delete(key)
      messages--
    }
    return { ...state, messages }
  }
}
