import type { QueuedItem } from './notification-queue.js'
import type { RetryDelays } from './schedule.js'

/** A mail or a call was not accepted. */
export class SendError extends Error {
  override readonly name = 'SendError'
  /** Whether it would be refused again. */
  readonly permanent: boolean
  /** Whether the error probably concerns others of the channel, too. */
  readonly isShared: boolean
  /** Whether the receiver wants nothing more, ever. */
  readonly isGone: boolean
  /** The time until the next attempt that the receiver asks for, in milliseconds. */
  readonly retryAfter: number

  constructor(
    text: string,
    about: {
      readonly permanent?: boolean
      readonly isShared?: boolean
      readonly isGone?: boolean
      readonly retryAfter?: number | undefined
      readonly cause?: unknown
    },
  ) {
    super(text, about.cause === undefined ? undefined : { cause: about.cause })
    this.permanent = about.permanent ?? false
    this.isShared = about.isShared ?? false
    this.isGone = about.isGone ?? false
    this.retryAfter = about.retryAfter ?? 0
  }
}

/** Sends the items of a queue: mails, or calls of one webhook. */
export interface Channel<T extends QueuedItem> {
  /** An item in the log: `a mail`. */
  readonly noun: string
  /** How long an item is retried, in milliseconds since its creation. */
  readonly giveUpAfter: number
  readonly delays: RetryDelays
  /** Log level of each sent item. */
  readonly sentLevel: 'info' | 'debug'
  /** @throws {SendError} rejects if the item was not accepted */
  send(item: T): Promise<void>
  /** Fields of an item in the log. */
  fieldsOf(item: T): object
  /** Stores or logs an item that was given up. Resolves in any case. */
  givenUp(item: T, error: unknown): Promise<void>
  /** Aborts the current attempt. Idempotent. */
  close(): void
}

/** The channel refuses all items while `isSender` is false, because another gateway sends them. */
export function onlyWhile<T extends QueuedItem>(isSender: () => boolean, channel: Channel<T>): Channel<T> {
  return {
    ...channel,
    send: async item => {
      if (!isSender()) throw new SendError(`another gateway sends ${channel.noun} now`, { isShared: true })
      await channel.send(item)
    },
  }
}
