import { randomBytes } from 'node:crypto'
import type { Message } from '../mqtt/message.js'
import { isResponseTopic, responsePrefix } from '../topics/response-topic.js'

/** A response that is expected. */
export interface ExpectedResponse {
  /** Its topic: of this response alone, and not to be guessed. */
  readonly topic: string
  /** Stops expecting it. */
  cancel(): void
}

/** The responses that this process expects; a source delivers them. */
export class ResponseInbox {
  readonly #prefix = `${responsePrefix}${randomName()}/`
  /** Matches the topics of all responses. */
  readonly filter = `${this.#prefix}+`
  readonly #expected = new Map<string, (message: Message) => void>()

  /** Whether a response is expected. */
  get isWaiting(): boolean {
    return this.#expected.size > 0
  }

  /** @param onResponse called for each message on the topic */
  expect(onResponse: (message: Message) => void): ExpectedResponse {
    const topic = this.#prefix + randomName()
    this.#expected.set(topic, onResponse)
    return { topic, cancel: () => this.#expected.delete(topic) }
  }

  /** Takes a message; one that is not expected is dropped. */
  deliver(message: Message): void {
    this.#expected.get(message.topic)?.(message)
  }
}

/** A response is never retained: nobody would remove it. */
export function unretainedResponse<T extends Message>(message: T): T {
  return message.retain && isResponseTopic(message.topic) ? { ...message, retain: false } : message
}

/** 128 random bits. */
function randomName(): string {
  return randomBytes(16).toString('base64url')
}
