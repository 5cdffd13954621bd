import { onExpired } from '../../access/expiry.js'
import type { GatewayError } from '../../base/errors.js'
import type { Caller } from '../../http/api-gate.js'
import { problemBody } from '../../http/problem.js'
import type { CloseReason, EventSink, Gap } from '../../hub/event-sink.js'
import type { SubscribeOptions, Subscription } from '../../hub/hub.js'
import type { PresenceHandle } from '../../presence/presence.js'
import { holdSubscriber, hubError } from '../subscriptions.js'
import type { TransportContext } from '../transport-context.js'
import type { OpenPoll, OpenPolls } from './open-polls.js'
import type { PollWriter } from './poll-writer.js'

/** Bytes of a response that are buffered before it is sent in parts. */
const maxBuffered = 256 * 1024

/** Bytes of events up to which a response is written as a string. */
const maxString = 8 * 1024

export interface PollEnd {
  /** The cursor for the next poll. */
  readonly cursor: string
  readonly gap: Gap | undefined
  /** Whether the response has all events there were; otherwise it is full. */
  readonly isAll: boolean
  readonly device: string
}

/** The format of a response; its encoder puts a comma before each event. */
export interface PollFormat {
  readonly start: string
  end(end: PollEnd): string
  /** The body of an error; left out for a problem (RFC 9457). */
  readonly refusal?: (error: GatewayError) => { readonly type: string; readonly body: string }
}

export interface PollOptions extends Pick<SubscribeOptions, 'filters' | 'encode'> {
  readonly cursor: string | undefined
  readonly last: number | undefined
  readonly limit: number
  readonly caller: Caller
  readonly device: string
  /**
   * Whether the device keeps its name between polls. A name generated for this response does not join presence: each poll would
   * add another one. Default: true.
   */
  readonly isNamed?: boolean
  readonly writer: PollWriter
  /** In milliseconds; 0 to respond with the stored events only, `Infinity` for no limit. */
  readonly timeout: number
  /** Milliseconds between the line feeds that are sent while it waits; left out for none. */
  readonly heartbeat?: number | undefined
  readonly format: PollFormat
  /** The polls that wait, this one included, and its key there. */
  readonly polls: OpenPolls
  readonly key?: string | undefined
  /** Called when it has ended, with the cursor of its response; `undefined` if it has none. */
  readonly answered?: (cursor: string | undefined) => void
}

/**
 * One poll. It responds with the stored events, or with the next ones if there are none; at the latest after its
 * timeout, or when its caller's credentials expire.
 */
export class PollResponse implements EventSink, OpenPoll {
  readonly #context: TransportContext
  readonly #options: PollOptions
  readonly #subscription: Subscription
  readonly #presence: PresenceHandle | undefined
  readonly #release: () => void
  readonly #timer: NodeJS.Timeout | undefined
  readonly #heartbeats: NodeJS.Timeout | undefined
  readonly #stopExpiry: () => void
  readonly #parts: Buffer[] = []
  #size = 0
  #gap: Gap | undefined
  #isLive = false
  #isDue: boolean
  /** Whether the head has been written. */
  #begun = false
  #ended = false

  /** @throws {GatewayError} as `holdSubscriber`, and `shutting-down` */
  constructor(context: TransportContext, options: PollOptions) {
    const { push } = context
    const { caller, device, writer, timeout, heartbeat, filters, encode, cursor, last, limit } = options
    this.#context = context
    this.#options = options
    this.#isDue = timeout === 0
    // Before it counts itself: a client with one connection may poll again and again.
    options.polls.makeRoom(options.key)
    this.#release = holdSubscriber(context, caller, filters)
    const { user } = caller.identity
    const { address } = caller.client
    this.#presence =
      options.isNamed === false
        ? undefined
        : push.presence.enter({ device, user, address, transport: 'poll', topics: filters })
    this.#subscription = push.hub.subscribe({ filters, encode, limit, device, cursor, last, sink: this })
    const waits = timeout > 0 && Number.isFinite(timeout)
    this.#timer = waits ? setTimeout(() => this.#timeOut(), timeout).unref() : undefined
    this.#heartbeats = heartbeat === undefined ? undefined : setInterval(() => this.#beat(), heartbeat).unref()
    this.#stopExpiry = onExpired(caller.identity, () => this.finish())
    writer.onClose(() => this.#end(undefined))
    options.polls.add(this, options.key)
  }

  write(data: Buffer): boolean {
    if (data.length === 0) return true
    this.#size += data.length
    if (this.#isLive) {
      this.#parts.push(data)
      // If it was the last one within the limit, the hub closes it in this tick with the right cursor.
      if (this.#parts.length === 1) process.nextTick(() => this.#timeOut())
      return true
    }
    if (!this.#begun && this.#size <= maxBuffered) {
      this.#parts.push(data)
      return true
    }
    const { body } = this.#options.writer
    if (!this.#begun) this.#begin([...this.#parts.splice(0), data])
    else body.write(data)
    return body.writableLength <= body.writableHighWaterMark
  }

  onDrain(resume: () => void): void {
    this.#options.writer.body.once('drain', resume)
  }

  gap(gap: Gap): void {
    this.#gap = this.#gap ? { ...this.#gap, resumes: gap.resumes } : gap
  }

  live(): void {
    this.#isLive = true
    if (this.#size > 0 || this.#gap || this.#isDue) this.finish()
  }

  /** Ends the waiting; while events are still being replayed, it waits for those. */
  #timeOut(): void {
    this.#isDue = true
    if (this.#isLive) this.finish()
  }

  /** Writes a line feed: white space may stand between any two tokens of JSON. */
  #beat(): void {
    const { body } = this.#options.writer
    if (!this.#isLive || this.#parts.length > 0 || body.writableNeedDrain) return
    if (!this.#begun) this.#begin([])
    body.write('\n')
  }

  close(reason: CloseReason, cursor: string | undefined): void {
    if (reason === 'complete') this.finish(cursor)
    else this.#fail(hubError(reason))
  }

  /** Sends the response with what there is. Idempotent. */
  finish(cursor = this.#subscription.cursor): void {
    if (!this.#end(cursor)) return
    const { writer, device, format } = this.#options
    const end = format.end({ cursor: cursor ?? '', gap: this.#gap, isAll: this.#isLive, device })
    if (this.#begun) {
      // The stored events have been written; these arrived after a heartbeat.
      writer.body.end(Buffer.concat([...withoutComma(this.#parts), Buffer.from(end)]))
    } else {
      writer.send({ body: this.#body(format.start, end) })
    }
  }

  /** A string leaves in one write with the head; a large body is not worth the copy. */
  #body(start: string, end: string): string | Buffer {
    const parts = withoutComma(this.#parts)
    if (this.#size > maxString) return Buffer.concat([Buffer.from(start), ...parts, Buffer.from(end)])
    let text = start
    for (const part of parts) text += part.toString()
    return text + end
  }

  /** Writes the head and what has been buffered. */
  #begin(parts: readonly Buffer[]): void {
    this.#begun = true
    const { format, writer } = this.#options
    writer.begin()
    writer.body.write(format.start)
    for (const part of withoutComma(parts)) writer.body.write(part)
  }

  #fail(error: GatewayError): void {
    if (!this.#end(undefined)) return
    const { writer, format, caller } = this.#options
    const { log, metrics } = this.#context
    const { reason, level, text, httpStatus: status, retryAfter } = error
    metrics.refused(reason)
    log[level]({ peer: caller.client.address, reason, status }, text)
    // The status 200 has been sent: the response can only be cut off.
    if (this.#begun) {
      writer.body.destroy()
      return
    }
    const { type, body } = (format.refusal ?? asProblem)(error)
    const wait = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }
    writer.send({ status, headers: { 'content-type': type, ...wait }, body })
  }

  /** Releases everything but the response; `false` if that has been done. */
  #end(cursor: string | undefined): boolean {
    if (this.#ended) return false
    this.#ended = true
    clearTimeout(this.#timer)
    clearInterval(this.#heartbeats)
    this.#stopExpiry()
    this.#subscription.close()
    this.#presence?.leave()
    this.#release()
    const { polls, key, answered } = this.#options
    polls.delete(this, key)
    answered?.(cursor)
    return true
  }
}

function asProblem({ reason, text: detail, httpStatus: status }: GatewayError): { type: string; body: string } {
  return { type: 'application/problem+json', body: JSON.stringify(problemBody({ status, detail, reason })) }
}

/** Removes the comma before the first event. */
function withoutComma([first, ...others]: readonly Buffer[]): Buffer[] {
  return first ? [first.subarray(1), ...others] : []
}
