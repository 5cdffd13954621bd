import { randomBytes } from 'node:crypto'
import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'
import type { RequestOutcome } from '../base/metrics.js'
import { type Journal, sizeOf } from '../journal/journal.js'
import type { Message } from '../mqtt/message.js'
import { decodeMessageProperties, encodeProperties } from '../mqtt/properties.js'
import type { Source } from './publisher.js'
import { ReplyTopics } from './reply-topics.js'
import type { ResponseInbox } from './response-inbox.js'

export interface RequestsOptions {
  readonly source: Pick<Source, 'publish' | 'receiveResponses'>
  readonly inbox: ResponseInbox
  readonly journal: Pick<Journal, 'watch'>
  readonly onEnded?: ((outcome: RequestOutcome) => void) | undefined
}

export interface RequestOptions {
  /** The user or address, for its quota. */
  readonly by: string
  /** In milliseconds. */
  readonly timeout: number
  /** The topic of the reply, of clients that know no response topic; push covers it. */
  readonly replyTopic?: string | undefined
  /** Aborted when nobody waits for the response any more. */
  readonly signal: AbortSignal
}

/** Requests that wait for their responses, and bytes of their messages; one user or address may have half of them. */
const [maxPending, maxPendingBytes] = [1000, 16 * 1024 ** 2]
/** Bytes of correlation data. */
const correlationBytes = 16

/** Publishes requests, and waits for their responses (MQTT 5 §4.10). */
export class Requests {
  readonly #options: RequestsOptions
  readonly #counts = new FairQuota(maxPending)
  readonly #sizes = new FairQuota(maxPendingBytes)
  readonly #replies: ReplyTopics
  /** Ends each pending request. */
  readonly #onClose = new Set<() => void>()
  #isClosed = false

  constructor(options: RequestsOptions) {
    this.#options = options
    this.#replies = new ReplyTopics(options.journal)
  }

  /** Requests that wait. */
  get pending(): number {
    return this.#counts.total
  }

  /**
   * Publishes `message` with a response topic and correlation data of its own; it expires with the timeout.
   *
   * @returns the first response
   * @throws {GatewayError} rejects with `response-timeout`, `requests-too-many`, `requests-unsupported`, `client-closed` where `signal` is aborted,
   *   `shutting-down`, and as `Publisher.publish`
   */
  async send(message: Message, options: RequestOptions): Promise<Message> {
    const { onEnded } = this.#options
    const size = sizeOf(message)
    this.#take(options.by, size)
    try {
      const response = await this.#exchange(message, options)
      onEnded?.('answered')
      return response
    } catch (error) {
      onEnded?.(outcomeOf(error))
      throw error
    } finally {
      this.#counts.giveBack(options.by, 1)
      this.#sizes.giveBack(options.by, size)
    }
  }

  /** Ends all requests; further ones are refused. */
  close(): void {
    this.#isClosed = true
    for (const end of this.#onClose) end()
  }

  /** @throws {GatewayError} `requests-too-many` */
  #take(by: string, size: number): void {
    const isFull = this.#counts.exceededBy(by, 1) || this.#sizes.exceededBy(by, size)
    // A single one may have any size.
    if (isFull && this.#counts.total > 0) throw new GatewayError('requests-too-many')
    this.#counts.take(by, 1)
    this.#sizes.take(by, size)
  }

  #exchange(message: Message, options: RequestOptions): Promise<Message> {
    const { timeout, replyTopic, signal } = options
    const correlationData = randomBytes(correlationBytes)
    const expires = Date.now() + timeout
    return new Promise((resolve, reject) => {
      const expected = this.#expect(replyTopic, response => {
        if (isResponseTo(response, correlationData)) settle(() => resolve(response))
      })
      const onAbort = (): void => fail(new GatewayError('client-closed'))
      const onClose = (): void => fail(new GatewayError('shutting-down'))
      const settle = (then: () => void): void => {
        clearTimeout(timer)
        expected.cancel()
        signal.removeEventListener('abort', onAbort)
        this.#onClose.delete(onClose)
        then()
      }
      const fail = (error: unknown): void => settle(() => reject(error))
      const timer = setTimeout(() => fail(new GatewayError('response-timeout')), timeout)
      signal.addEventListener('abort', onAbort)
      this.#onClose.add(onClose)
      if (signal.aborted) onAbort()
      if (this.#isClosed) onClose()
      const properties = withResponse(message.properties, expected.topic, correlationData)
      const isOver = (): boolean => signal.aborted || this.#isClosed || Date.now() >= expires
      this.#publish({ ...message, properties, expires }, options, expected, isOver).catch(fail)
    })
  }

  #expect(replyTopic: string | undefined, onMessage: (message: Message) => void) {
    if (replyTopic === undefined) return { ...this.#options.inbox.expect(onMessage), turn: undefined }
    const onReply = (event: Omit<Message, 'retain'>): void => onMessage({ ...event, retain: false })
    return { ...this.#replies.expect(replyTopic, onReply), topic: replyTopic }
  }

  async #publish(
    message: Message,
    { by, replyTopic }: RequestOptions,
    { turn }: { readonly turn: Promise<void> | undefined },
    isOver: () => boolean,
  ): Promise<void> {
    const { source } = this.#options
    if (replyTopic === undefined) await source.receiveResponses()
    await turn
    // It may have waited for long.
    if (!isOver()) await source.publish(message, { by })
  }
}

function withResponse(properties: Buffer | undefined, responseTopic: string, correlationData: Buffer): Buffer {
  const own = encodeProperties({ responseTopic, correlationData })
  return properties ? Buffer.concat([properties, own]) : own
}

/** Whether a message on the response topic is the response: one without correlation data is; others may be to other requests. */
function isResponseTo({ properties }: Message, correlationData: Buffer): boolean {
  const given = properties && decodeMessageProperties(properties).correlationData
  return given === undefined || given.equals(correlationData)
}

function outcomeOf(error: unknown): RequestOutcome {
  const reason = error instanceof GatewayError ? error.reason : undefined
  if (reason === 'response-timeout') return 'timeout'
  return reason === 'client-closed' ? 'abandoned' : 'refused'
}
