import { onOver } from '../../access/expiry.js'
import { GatewayError } from '../../base/errors.js'
import type { Caller } from '../../http/api-gate.js'
import { problemBody } from '../../http/problem.js'
import type { CloseReason, EventSink, Gap } from '../../hub/event-sink.js'
import type { SubscribeOptions, Subscription } from '../../hub/hub.js'
import type { PresenceHandle } from '../../presence/presence.js'
import { holdSubscriber } from '../hold-subscriber.js'
import type { TransportContext } from '../transport-context.js'
import type { OpenPoll } from './open-polls.js'
import type { PollWriter } from './poll-writer.js'

/** What is kept of an answer before it goes out in parts, in bytes. */
const mostKept = 256 * 1024

/** Events of an answer that is written as a text, in bytes. */
const longestText = 8 * 1024

/** What goes round the events of an answer. */
export interface PollEnd {
  /** Where to go on. */
  readonly cursor: string
  readonly gap: Gap | undefined
  /** Whether there was nothing more when it was answered; else it is full. */
  readonly isAll: boolean
  readonly device: string
}

/** How an answer is written: its encoder puts a comma before each event. */
export interface PollForm {
  readonly start: string
  end(end: PollEnd): string
  /** What is said where there can be no answer; left out for a problem (RFC 9457). */
  readonly refusal?: (ending: GatewayError) => { readonly type: string; readonly body: string }
}

/** Who polls, and for what. */
export interface PollOrder extends Pick<SubscribeOptions, 'filters' | 'encode'> {
  readonly cursor: string | undefined
  readonly last: number | undefined
  readonly limit: number
  readonly caller: Caller
  readonly device: string
  /**
   * Whether the device has a name that it may come back with; one that was only made for this answer is nobody's whom others
   * should be told of, with each poll again. Default: true.
   */
  readonly isNamed?: boolean
  readonly wire: PollWriter
  /** In milliseconds; 0 for an answer as soon as it is known what there is, `Infinity` for as long as it takes. */
  readonly timeout: number
  /** After how many milliseconds of waiting a line feed shows, each time, that it is alive; left out for never. */
  readonly heartbeat?: number | undefined
  readonly form: PollForm
  /** It is over, whatever the answer. */
  readonly over: () => void
}

/**
 * One poll: it collects what there is, and is answered when that is all and not nothing, or with what comes next, or when
 * its time is up: its own, or that of what proved who asks.
 */
export class PollResponse implements EventSink, OpenPoll {
  readonly #options: TransportContext
  readonly #order: PollOrder
  readonly #subscription: Subscription
  readonly #attendance: PresenceHandle | undefined
  readonly #release: () => void
  readonly #timer: NodeJS.Timeout | undefined
  readonly #beats: NodeJS.Timeout | undefined
  readonly #stopExpiry: () => void
  readonly #parts: Buffer[] = []
  #size = 0
  #gap: Gap | undefined
  #isLive = false
  #isDue: boolean
  /** Whether its first bytes have been written. */
  #begun = false
  #over = false

  /** @throws {Ending} as `holdSubscriber` */
  constructor(options: TransportContext, order: PollOrder) {
    const { push } = options
    const { caller, device, wire, timeout, heartbeat, filters, encode, cursor, last, limit } = order
    this.#options = options
    this.#order = order
    this.#isDue = timeout === 0
    this.#release = holdSubscriber(options, caller, filters)
    const { user } = caller.identity
    const { address } = caller.client
    this.#attendance =
      order.isNamed === false
        ? undefined
        : push.presence.enter({ device, user, address, transport: 'poll', topics: filters })
    this.#subscription = push.hub.subscribe({ filters, encode, limit, device, cursor, last, sink: this })
    const waits = timeout > 0 && Number.isFinite(timeout)
    this.#timer = waits ? setTimeout(timeIsUp, timeout, this).unref() : undefined
    this.#beats = heartbeat === undefined ? undefined : setInterval(isAlive, heartbeat, this).unref()
    this.#stopExpiry = onOver(caller.identity, () => this.finish())
    wire.onClose(() => this.#end())
  }

  write(data: Buffer): boolean {
    if (data.length === 0) return true
    this.#size += data.length
    if (this.#isLive) {
      this.#parts.push(data)
      // The hub says right after this whether it was the last, and then where that is.
      if (this.#parts.length === 1) process.nextTick(timeIsUp, this)
      return true
    }
    if (!this.#begun && this.#size <= mostKept) {
      this.#parts.push(data)
      return true
    }
    const { body } = this.#order.wire
    if (!this.#begun) this.#begin([...this.#parts.splice(0), data])
    else body.write(data)
    return body.writableLength <= body.writableHighWaterMark
  }

  onDrain(resume: () => void): void {
    this.#order.wire.body.once('drain', resume)
  }

  gap(gap: Gap): void {
    this.#gap = this.#gap ? { ...this.#gap, resumes: gap.resumes } : gap
  }

  live(): void {
    this.#isLive = true
    if (this.#size > 0 || this.#gap || this.#isDue) this.finish()
  }

  /** Its time is up. While it is not known what there is, it waits for that. */
  due(): void {
    this.#isDue = true
    if (this.#isLive) this.finish()
  }

  /** Shows that it is alive: what stands between two values of JSON may be any white space. */
  beat(): void {
    const { body } = this.#order.wire
    if (!this.#isLive || this.#parts.length > 0 || body.writableNeedDrain) return
    if (!this.#begun) this.#begin([])
    body.write('\n')
  }

  close(reason: CloseReason, cursor: string | undefined): void {
    if (reason === 'complete') this.finish(cursor)
    else this.#fail(new GatewayError(reason === 'too-slow' ? 'client-too-slow' : reason))
  }

  /** Answers with what there is; another answer changes nothing. */
  finish(cursor = this.#subscription.cursor): void {
    if (!this.#end()) return
    const { wire, device, form } = this.#order
    const end = form.end({ cursor: cursor ?? '', gap: this.#gap, isAll: this.#isLive, device })
    if (this.#begun) {
      // Of events that were there before, none is left: what there is came after a sign of life.
      wire.body.end(Buffer.concat([...withoutComma(this.#parts), Buffer.from(end)]))
    } else {
      wire.send({ body: this.#body(form.start, end) })
    }
  }

  /** A short one as a text, which leaves together with the head; to copy that is not worth it where there is much. */
  #body(start: string, end: string): string | Buffer {
    const parts = withoutComma(this.#parts)
    if (this.#size > longestText) return Buffer.concat([Buffer.from(start), ...parts, Buffer.from(end)])
    let text = start
    for (const part of parts) text += part.toString()
    return text + end
  }

  /** Writes what has been kept, and whatever comes from now on at once. */
  #begin(parts: readonly Buffer[]): void {
    this.#begun = true
    const { form, wire } = this.#order
    wire.begin()
    wire.body.write(form.start)
    for (const part of withoutComma(parts)) wire.body.write(part)
  }

  #fail(ending: GatewayError): void {
    if (!this.#end()) return
    const { wire, form } = this.#order
    const { log, metrics } = this.#options
    const { reason, level, text, httpStatus: status, retryAfter } = ending
    metrics.refused(reason)
    log[level]({ peer: this.#order.caller.client.address, reason, status }, text)
    // What has begun with 200 can only be cut off.
    if (this.#begun) {
      wire.body.destroy()
      return
    }
    const { type, body } = (form.refusal ?? asProblem)(ending)
    const wait = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }
    wire.send({ status, headers: { 'content-type': type, ...wait }, body })
  }

  /** Lets go of everything but the answer; `false` where that has been done. */
  #end(): boolean {
    if (this.#over) return false
    this.#over = true
    clearTimeout(this.#timer)
    clearInterval(this.#beats)
    this.#stopExpiry()
    this.#subscription.close()
    this.#attendance?.leave()
    this.#release()
    this.#order.over()
    return true
  }
}

function timeIsUp(poll: PollResponse): void {
  poll.due()
}

function isAlive(poll: PollResponse): void {
  poll.beat()
}

function asProblem({ reason, text: detail, httpStatus: status }: GatewayError): { type: string; body: string } {
  return { type: 'application/problem+json', body: JSON.stringify(problemBody({ status, detail, reason })) }
}

/** Each event has a comma before it, the first one too. */
function withoutComma([first, ...others]: readonly Buffer[]): Buffer[] {
  return first ? [first.subarray(1), ...others] : []
}
