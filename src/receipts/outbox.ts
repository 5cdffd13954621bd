import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../base/clock.js'
import { type ErrorReason, GatewayError } from '../base/errors.js'
import type { Logger } from '../base/log.js'
import type { Publisher } from '../sources/publisher.js'
import type { WaitingMessage } from './messages.js'

/** Messages that are published at the same time. */
export const atOnce = 32
/** Milliseconds until the next try after a failure, at first and at most. */
const [firstDelay, maxDelay] = [250, 5000]
/** Errors that another try would end with as well. */
const refusedForGood: ReadonlySet<ErrorReason> = new Set(['topic-refused', 'body-too-large'])
/** Milliseconds that publishes under way have when it is closed. */
const closeTime = 1000

export interface OutboxOptions {
  /** Whether messages wait at the start. */
  readonly hasMessages: boolean
  /** The oldest messages. @param isRepeated whether some have perhaps been published already, without an answer */
  readonly waiting: (limit: number, isRepeated: boolean) => Promise<WaitingMessage[]>
  /** Whether what was published a while ago is in the journal; left out for always. */
  readonly isSettled?: (() => boolean) | undefined
  /** Deletes published messages. */
  readonly sent: (keys: readonly string[]) => Promise<void>
  readonly publisher: Publisher
  readonly clock: Clock
  readonly log: Logger
}

/** Publishes stored messages until the broker has taken them: after any outage of the broker, and after a restart. */
export class Outbox {
  readonly #options: OutboxOptions
  #running: Promise<void> | undefined
  /** Whether messages may have been added since the last read. */
  #isNew = false
  /** Whether waiting messages have perhaps been published already: before the start, or without an answer. */
  #isRepeated: boolean
  #closed = false
  #stopWaiting: (() => void) | undefined

  constructor(options: OutboxOptions) {
    this.#options = options
    this.#isRepeated = options.hasMessages
  }

  /** To be called when a message is added. */
  wake(): void {
    this.#isNew = true
    if (this.#closed) return
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
    })
  }

  async #run(): Promise<void> {
    let wait = firstDelay
    while (!this.#closed) {
      const outcome = await this.#publishSome()
      if (outcome === 'all' && !this.#isNew) return
      if (outcome !== 'failed') wait = firstDelay
      else {
        await this.#wait(wait)
        wait = Math.min(wait * 2, maxDelay)
      }
    }
  }

  async #publishSome(): Promise<'all' | 'some' | 'failed'> {
    const { waiting, isSettled, sent, publisher, log } = this.#options
    try {
      if (this.#isRepeated && isSettled?.() === false) return 'failed'
      const isRepeated = this.#isRepeated
      this.#isNew = false
      const messages = firstOfGroups(await waiting(atOnce, isRepeated))
      this.#isRepeated = isRepeated && messages.length > 0
      if (messages.length === 0) return 'all'
      if (!publisher.connected) return 'failed'
      this.#isRepeated = true
      const done = await Promise.all(messages.map(message => this.#publish(message)))
      await sent(messages.filter((_, index) => done[index]).map(({ key }) => key))
      this.#isRepeated = done.includes(false)
      return done.includes(false) ? 'failed' : 'some'
    } catch (error) {
      if (!this.#closed) log.warn({ err: error }, 'failed to publish messages about receipts and will retry')
      return 'failed'
    }
  }

  /** @returns whether it is done: published, or refused for good */
  async #publish({ topic, payload }: WaitingMessage): Promise<boolean> {
    try {
      await this.#options.publisher.publish({ topic, payload: Buffer.from(payload), qos: 1, retain: false })
      return true
    } catch (error) {
      if (!refusedForGood.has(GatewayError.from(error).reason)) return false
      this.#options.log.warn({ topic }, 'the broker refused a message about receipts on this topic')
      return true
    }
  }

  #wait(milliseconds: number): Promise<void> {
    return new Promise(resolve => {
      const cancel = this.#options.clock.after(milliseconds, resolve)
      this.#stopWaiting = () => {
        cancel()
        resolve()
      }
      if (this.#closed) this.#stopWaiting()
    })
  }

  /** Stops; unpublished messages stay in the store. */
  async close(): Promise<void> {
    this.#closed = true
    this.#stopWaiting?.()
    const ended = new AbortController()
    const overdue = delay(closeTime, undefined, { signal: ended.signal }).catch(() => {})
    await Promise.race([this.#running, overdue])
    ended.abort()
  }
}

/** The messages before the first one whose group has an earlier message among them, which must be published first. */
function firstOfGroups(messages: readonly WaitingMessage[]): WaitingMessage[] {
  const groups = new Set<string>()
  for (const [index, { group }] of messages.entries()) {
    if (groups.has(group)) return messages.slice(0, index)
    groups.add(group)
  }
  return [...messages]
}
