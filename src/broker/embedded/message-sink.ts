import type { Message } from '../../mqtt/message.js'

/** A message that the broker has accepted and stored, as delivered to subscribers; `retain`: whether it is its topic's new retained message. */
export type AcceptedMessage = Message

/** Appends accepted messages to a journal. */
export interface MessageSink {
  /** Whether messages must wait, until `resume`. */
  readonly isFull: boolean
  /**
   * Appends a message, in the order of the calls.
   *
   * @param isAwaited whether a publisher waits for its acknowledgement
   * @returns resolves when the message may be acknowledged, in the order of the calls, and never rejects; `undefined` if that need not wait
   */
  append(message: AcceptedMessage, isAwaited: boolean): Promise<void> | undefined
}
