import type { Writable } from 'node:stream'
import { onOver } from '../../access/expiry.js'
import { GatewayError } from '../../base/errors.js'
import type { Caller } from '../../http/api-gate.js'
import type { CloseReason, EventSink } from '../../hub/event-sink.js'
import type { Subscription } from '../../hub/hub.js'
import { parseId } from '../../journal/event.js'
import type { PresenceHandle } from '../../presence/presence.js'
import type { OpenPoll } from '../../transports/poll/open-polls.js'
import type { TransportContext } from '../../transports/transport-context.js'
import type { Handle } from './handle.js'
import { contentOf, nothing } from './response.js'

/** Who asks for a handle. */
export interface HandleOrder {
  readonly handle: Handle
  readonly caller: Caller
  readonly device: string
  /** What the answer is written to. */
  readonly answer: Pick<Writable, 'once' | 'destroy'>
  /** In milliseconds. */
  readonly wait: number
  /** It is over, whatever the answer. */
  readonly over: () => void
}

/**
 * One request for a handle: it is answered with the oldest message that waits for it, else with the next that comes, or
 * with nothing when its time is up, when a newer request has its place, or what proved who asks holds no longer.
 */
export class HandleRequest implements EventSink, OpenPoll {
  /** What the answer's `content` is. Rejects with an `GatewayError`. */
  readonly answered: Promise<Buffer>
  readonly #options: TransportContext
  readonly #order: HandleOrder
  readonly #release: () => void
  readonly #attendance: PresenceHandle
  readonly #timer: NodeJS.Timeout
  readonly #stopExpiry: () => void
  #resolve: (content: Buffer) => void = () => {}
  #reject: (ending: GatewayError) => void = () => {}
  #subscription: Subscription | undefined
  #content: Buffer = nothing
  #over = false

  /** @throws {Ending} as `ApiGate.hold` */
  constructor(options: TransportContext, order: HandleOrder) {
    const { gate, push } = options
    const { caller, device, handle, answer, wait } = order
    this.#options = options
    this.#order = order
    this.answered = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#release = gate.hold(caller)
    handle.reader = this
    const { user } = caller.identity
    this.#attendance = push.presence.enter({
      ...{ device, user, address: caller.client.address },
      ...{ transport: 'poll', topics: [handle.topic] },
    })
    this.#timer = setTimeout(() => this.finish(), wait).unref()
    this.#stopExpiry = onOver(caller.identity, () => this.finish())
    answer.once('close', () => this.finish())
    void this.#look(true)
  }

  write(data: Buffer): boolean {
    this.#content = data
    return true
  }

  onDrain(resume: () => void): void {
    resume()
  }

  /** The journal has let go of what comes after the handle's place: it looks for what is there. */
  gap(): void {
    this.#subscription?.close()
    this.#subscription = undefined
    void this.#look(false)
  }

  close(reason: CloseReason, cursor: string | undefined): void {
    if (reason === 'complete') this.#deliver(this.#content, parseId(cursor ?? '')?.sequence ?? 0)
    else if (reason === 'shutting-down') this.finish()
    else this.#fail(new GatewayError(reason === 'too-slow' ? 'client-too-slow' : reason))
  }

  /**
   * Answers with nothing, where there is no answer yet.
   *
   * @param wait milliseconds until then; it does not listen meanwhile
   */
  finish(wait = 0): void {
    const place = parseId(this.#subscription?.cursor ?? '')
    if (!this.#end()) return
    if (place) this.#order.handle.advance(place.sequence)
    if (wait === 0) this.#resolve(nothing)
    else setTimeout(() => this.#resolve(nothing), wait).unref()
  }

  /** Makes room for a newer one: it is answered with nothing at once, or soon. */
  replace(): void {
    this.finish(this.#order.handle.replaced())
  }

  async #look(isHubsPlace: boolean): Promise<void> {
    try {
      const { handle } = this.#order
      await handle.interrupt()
      const event = await handle.next(isHubsPlace)
      if (this.#over) return
      if (event) this.#deliver(contentOf(event), event.sequence)
      else this.#listen()
    } catch (error) {
      this.#fail(error instanceof GatewayError ? error : new GatewayError('journal-unavailable', { cause: error }))
    }
  }

  #listen(): void {
    const { handle, device } = this.#order
    const { topic, cursor } = handle
    const { hub } = this.#options.push
    this.#subscription = hub.subscribe({ filters: [topic], encode: contentOf, cursor, limit: 1, device, sink: this })
  }

  #deliver(content: Buffer, sequence: number): void {
    if (!this.#end()) return
    this.#order.handle.sending(sequence, this.#order.answer)
    this.#resolve(content)
  }

  #fail(ending: GatewayError): void {
    if (this.#end()) this.#reject(ending)
  }

  /** Lets go of everything; `false` where that has been done. */
  #end(): boolean {
    if (this.#over) return false
    this.#over = true
    const { handle } = this.#order
    if (handle.reader === this) handle.reader = undefined
    clearTimeout(this.#timer)
    this.#stopExpiry()
    this.#subscription?.close()
    this.#attendance.leave()
    this.#release()
    this.#order.over()
    return true
  }
}
