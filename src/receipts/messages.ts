import { isWithinBounds, type TopicBounds } from '../topics/topic-syntax.js'
import type { BatchedStore } from './batched-store.js'
import { allOf, iso, keyOf, type MessageRecord, type RepositoryState, type RequestRecord, upTo } from './records.js'

/** Bounds of the messages about receipts. */
export interface MessageBounds {
  /** Messages that may be queued; beyond, the oldest are dropped. */
  readonly maxMessages: number
  /** Rate limit of messages about receipts that were not requested; left out for none. */
  readonly mayPublish?: (() => boolean) | undefined
  /** Bounds of topics at the broker, in bytes: a larger one could end the session that all publishers share. */
  readonly topic: TopicBounds
}

/** A queued message. */
export interface WaitingMessage extends MessageRecord {
  readonly key: string
}

/** Devices of one message, and UTF-16 units of their names: far below the broker's bounds. */
const [devicesPerMessage, textPerMessage] = [500, 32 * 1024]

const topicPrefix = 'receipts/'

/** The queue of messages about receipts. Changes are collected in the store, and the new state is returned. */
export class ReceiptMessages {
  readonly #store: BatchedStore
  readonly #bounds: MessageBounds
  /** Messages that were dropped because the queue was full. */
  dropped = 0

  constructor(store: BatchedStore, bounds: MessageBounds) {
    this.#store = store
    this.#bounds = bounds
  }

  /** Whether a receipt that was not requested is published: requested ones have half of the queue for themselves. */
  mayPublish({ messages }: RepositoryState): boolean {
    const { maxMessages, mayPublish } = this.#bounds
    return messages < maxMessages / 2 && mayPublish?.() !== false
  }

  /** Adds a message about an event on `topic`; none about events on receipts/#, which would cause further messages endlessly. */
  add(state: RepositoryState, topic: string, what: object, group: string): RepositoryState {
    if (topic.startsWith(topicPrefix)) return state
    if (!isWithinBounds(topicPrefix + topic, this.#bounds.topic)) return state
    const message: MessageRecord = { topic: topicPrefix + topic, payload: JSON.stringify(what), group }
    this.#store.put(keyOf('m', state.message), message)
    return { ...state, messages: state.messages + 1, message: state.message + 1 }
  }

  /** Adds messages about devices that have missed a deadline. */
  addMissed(
    state: RepositoryState,
    { id, topic, deadline }: RequestRecord,
    missed: readonly string[],
  ): RepositoryState {
    for (let at = 0; at < missed.length; ) {
      const devices = upTo(missed.slice(at, at + devicesPerMessage), textPerMessage, device => device.length)
      state = this.add(state, topic, { type: 'missed', id, topic, devices, deadline: iso(deadline) }, id)
      at += devices.length
    }
    return state
  }

  /** Drops the oldest messages beyond the bound. */
  async dropOldest(state: RepositoryState): Promise<RepositoryState> {
    const over = state.messages - this.#bounds.maxMessages
    if (over <= 0) return state
    const oldest = await this.#store.range(allOf('m'), over)
    for (const [key] of oldest) this.#store.delete(key)
    this.dropped += oldest.length
    return { ...state, messages: state.messages - oldest.length }
  }

  /** The oldest messages. */
  async waiting(limit: number): Promise<WaitingMessage[]> {
    const entries = await this.#store.range(allOf('m'), limit)
    return entries.map(([key, value]) => ({ key, ...(JSON.parse(value) as MessageRecord) }))
  }

  /** Deletes published messages. */
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
