/** A message that the broker has accepted and stored, as delivered to subscribers. */
export interface AcceptedMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  /** Whether it is its topic's new retained message. */
  readonly retain: boolean
}

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
