import { randomBytes } from 'node:crypto'
import type { Writable } from 'node:stream'
import { onExpired } from '../../access/expiry.js'
import { GatewayError } from '../../base/errors.js'
import type { Caller } from '../../http/api-gate.js'
import type { CloseReason, EventSink } from '../../hub/event-sink.js'
import type { Subscription } from '../../hub/hub.js'
import { parseId } from '../../journal/event.js'
import type { PresenceHandle } from '../../presence/presence.js'
import type { OpenPoll } from '../../transports/poll/open-polls.js'
import type { TransportContext } from '../../transports/transport-context.js'
import type { Handle } from './handle.js'
import { contentOf, emptyContent } from './response.js'

export interface HandleRequestOptions {
  readonly handle: Handle
  readonly caller: Caller
  readonly device: string
  /** The stream that the response is written to. */
  readonly response: Pick<Writable, 'once' | 'destroy'>
  /** How long to wait for a message, in milliseconds. */
  readonly wait: number
  /** Called at its end, whatever the response. */
  readonly onEnd: () => void
}

/**
 * One request for a handle. The response is the oldest waiting message, else the next one, or an empty one when the time is
 * up, a newer request replaces this one, or the caller's credentials expire.
 */
export class HandleRequest implements EventSink, OpenPoll {
  /** The response's `content`. Rejects with a `GatewayError`. */
  readonly content: Promise<Buffer>
  readonly #context: TransportContext
  readonly #options: HandleRequestOptions
  readonly #id = randomBytes(9).toString('base64url')
  readonly #release: () => void
  readonly #presence: PresenceHandle
  readonly #timer: NodeJS.Timeout
  readonly #stopExpiry: () => void
  #resolve: (content: Buffer) => void = () => {}
  #reject: (error: GatewayError) => void = () => {}
  #subscription: Subscription | undefined
  #received: Buffer = emptyContent
  #ended = false

  /** @throws {GatewayError} as `ApiGate.hold` */
  constructor(context: TransportContext, options: HandleRequestOptions) {
    const { gate, push } = context
    const { caller, device, handle, response, wait } = options
    this.#context = context
    this.#options = options
    this.content = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#release = gate.hold(caller)
    handle.request = this
    const { user } = caller.identity
    this.#presence = push.presence.enter({
      ...{ device, user, address: caller.client.address },
      ...{ transport: 'poll', topics: [handle.topic] },
    })
    this.#timer = setTimeout(() => this.finish(), wait).unref()
    this.#stopExpiry = onExpired(caller.identity, () => this.finish())
    response.once('close', () => this.finish())
    void this.#begin()
  }

  write(data: Buffer): boolean {
    this.#received = data
    return true
  }

  onDrain(resume: () => void): void {
    resume()
  }

  /** The journal has evicted events after the handle's position: scan for those that remain. */
  gap(): void {
    this.#subscription?.close()
    this.#subscription = undefined
    void this.#findNext(false)
  }

  close(reason: CloseReason, cursor: string | undefined): void {
    // Its cursor is after a message that is not claimed yet.
    this.#subscription = undefined
    if (reason === 'complete') void this.#deliver(this.#received, parseId(cursor ?? '')?.sequence ?? 0)
    else if (reason === 'shutting-down') this.finish()
    else this.#fail(new GatewayError(reason === 'too-slow' ? 'client-too-slow' : reason))
  }

  /**
   * Sends an empty response, if none has been sent.
   *
   * @param wait milliseconds until then; the request does not get messages meanwhile
   */
  finish(wait = 0): void {
    const position = parseId(this.#subscription?.cursor ?? '')
    if (!this.#end()) return
    if (position) this.#options.handle.advance(position.sequence)
    this.#options.handle.end(this.#id)
    if (wait === 0) this.#resolve(emptyContent)
    else setTimeout(() => this.#resolve(emptyContent), wait).unref()
  }

  /** Makes room for a newer request: its response is empty, at once or soon. */
  replace(): void {
    this.finish(this.#options.handle.replaced())
  }

  async #begin(): Promise<void> {
    try {
      await this.#options.handle.begin(this.#id)
    } catch (error) {
      return this.#fail(unavailable(error))
    }
    if (!this.#ended) await this.#findNext(true)
  }

  async #findNext(isLive: boolean): Promise<void> {
    try {
      const { handle } = this.#options
      const event = await handle.next(isLive)
      if (this.#ended) return
      if (event) await this.#deliver(contentOf(event), event.sequence)
      else this.#listen()
    } catch (error) {
      this.#fail(unavailable(error))
    }
  }

  #listen(): void {
    const { handle, device } = this.#options
    const { topic, cursor } = handle
    const { hub } = this.#context.push
    this.#subscription = hub.subscribe({ filters: [topic], encode: contentOf, cursor, limit: 1, device, sink: this })
  }

  async #deliver(content: Buffer, sequence: number): Promise<void> {
    if (this.#ended) return
    const { handle, response } = this.#options
    try {
      const claim = await handle.claim(this.#id, sequence)
      if (claim === 'replaced') return this.finish()
      if (claim === 'delivered') return this.#findNext(false)
    } catch (error) {
      return this.#fail(unavailable(error))
    }
    if (!this.#end()) return handle.unclaim(this.#id)
    handle.startSending(this.#id, sequence, response)
    this.#resolve(content)
  }

  #fail(error: GatewayError): void {
    if (this.#end()) this.#reject(error)
  }

  /** Releases everything; `false` if it has ended before. */
  #end(): boolean {
    if (this.#ended) return false
    this.#ended = true
    const { handle } = this.#options
    if (handle.request === this) handle.request = undefined
    clearTimeout(this.#timer)
    this.#stopExpiry()
    this.#subscription?.close()
    this.#presence.leave()
    this.#release()
    this.#options.onEnd()
    return true
  }
}

function unavailable(error: unknown): GatewayError {
  return error instanceof GatewayError ? error : new GatewayError('journal-unavailable', { cause: error })
}
