import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import type { Caller } from '../../http/api-gate.js'
import type { CloseReason, EventSink, Gap } from '../../hub/event-sink.js'
import type { SubscribeOptions, Subscription } from '../../hub/hub.js'
import type { PresenceHandle } from '../../presence/presence.js'
import type { Heartbeats, HeartbeatTarget } from '../heartbeats.js'
import type { ConnectionEvents, LiveConnection } from '../live-connections.js'
import type { MemoizedBuffer } from '../memoized-buffer.js'
import type { StreamWriter } from '../stream-writer.js'
import { authorizeSubscribe, holdSubscriber, hubError } from '../subscriptions.js'
import type { TransportContext } from '../transport-context.js'

/** How long a client has to take its last bytes, in milliseconds. */
const lingerTime = 2000

/** Topic filters in the log line of a stream. */
const maxLoggedFilters = 10

/** How a stream says what is no event. */
export interface ControlEvents {
  gap(gap: Gap): Buffer
  /** The last thing that a client is told; `cursor` is where it would go on. */
  end(ending: GatewayError, cursor?: string): Buffer
}

/** What all event streams of one kind share. */
export interface StreamContext extends TransportContext {
  readonly controlEvents: ControlEvents
  readonly heartbeats: Heartbeats
  /** Whether one that is silent for that long has all that was asked for, and ends. Default: false. */
  readonly endsWhenIdle?: boolean
  /** The event that moves the id that a client comes back with. */
  readonly cursorEvents: MemoizedBuffer
  /** The bytes that show that a stream is alive. */
  readonly heartbeat: Buffer
  /** Whether `cursorEvents` come in silence, too, where the id has moved. Default: false. */
  readonly sendsCursorWhenIdle?: boolean
}

/** Who wants a stream, and of what. */
export interface StreamOptions
  extends Pick<SubscribeOptions, 'filters' | 'encode' | 'cursor' | 'last' | 'limit'>,
    Omit<StreamWriter, 'begin'> {
  readonly caller: Caller
  readonly device: string
}

/**
 * One event stream that is open. It counts as a connection and is present until it ends: when its client goes, its
 * identity expires or may not listen any more, the hub lets go of it, or the gateway shuts down.
 */
export class EventStream implements EventSink, HeartbeatTarget, ConnectionEvents {
  wroteAt = 0
  readonly #context: StreamContext
  readonly #body: StreamWriter['body']
  readonly #filters: readonly string[]
  readonly #address: string
  readonly #release: () => void
  readonly #connection: LiveConnection
  readonly #presence: PresenceHandle
  readonly #subscription: Subscription
  /** The cursor that its client was last told of in an event of its own. */
  #told: string | undefined
  readonly #startedAt = performance.now()
  #bytesOut = 0
  #closed = false

  /**
   * Nothing is written to it before this turn of the event loop is over.
   *
   * @throws {GatewayError} as `holdSubscriber`, and `shutting-down`
   */
  constructor(context: StreamContext, order: StreamOptions) {
    const { caller, device, body, peer, filters, encode, cursor, last, limit } = order
    const { connections, push, heartbeats } = context
    const { user } = caller.identity
    this.#context = context
    this.#body = body
    this.#filters = filters
    this.#address = caller.client.address
    this.#release = holdSubscriber(context, caller, filters)
    try {
      this.#connection = connections.open(caller.identity, this)
    } catch (error) {
      this.#release()
      throw error
    }
    this.#presence = push.presence.enter({ device, user, address: this.#address, transport: 'sse', topics: filters })
    this.#subscription = push.hub.subscribe({ filters, encode, cursor, last, limit, device, sink: this })
    heartbeats.add(this)
    peer.on('close', () => this.#end(new GatewayError('client-closed')))
    const fields = { device, topics: filters.slice(0, maxLoggedFilters) }
    context.log.info({ ...this.#logFields, ...fields }, 'an event stream connected')
  }

  /** What a client names it by. */
  get id(): string {
    return this.#connection.id
  }

  write(data: Buffer): boolean {
    const body = this.#body
    this.wroteAt = this.#context.heartbeats.tick
    this.#bytesOut += data.length
    body.write(data)
    return body.writableLength <= body.writableHighWaterMark
  }

  onDrain(resume: () => void): void {
    this.#body.once('drain', resume)
  }

  gap(gap: Gap): void {
    this.write(this.#context.controlEvents.gap(gap))
  }

  live(): void {
    this.#told = this.#subscription.cursor
    this.write(this.#context.cursorEvents.of(this.#told))
  }

  beat(): void {
    // What waits is read before this would be, or never.
    if (this.#body.writableNeedDrain) return
    const { endsWhenIdle, heartbeat, sendsCursorWhenIdle } = this.#context
    if (endsWhenIdle) return this.end(new GatewayError('complete'))
    this.write(heartbeat)
    const { cursor } = this.#subscription
    if (sendsCursorWhenIdle && cursor !== undefined && cursor !== this.#told) this.live()
    this.#presence.seen()
  }

  close(reason: CloseReason): void {
    this.end(hubError(reason))
  }

  renewed(identity: Identity): void {
    try {
      authorizeSubscribe(this.#context.gate.permissionsOf(identity), this.#filters)
    } catch (error) {
      this.end(GatewayError.from(error))
    }
  }

  end(ending: GatewayError): void {
    if (!this.#end(ending)) return
    const body = this.#body.end(this.#context.controlEvents.end(ending, this.#subscription.cursor))
    const timer = setTimeout(() => body.destroy(), lingerTime).unref()
    body.once('close', () => clearTimeout(timer))
  }

  /** Lets go of everything but the writer; `false` where that has been done. */
  #end({ reason, level, logFields, detailedText }: GatewayError): boolean {
    if (this.#closed) return false
    this.#closed = true
    const { heartbeats, metrics, log } = this.#context
    heartbeats.delete(this)
    this.#subscription.close()
    this.#presence.leave()
    this.#connection.close()
    this.#release()
    metrics.ended(reason)
    const seconds = Math.round(performance.now() - this.#startedAt) / 1000
    log[level]({ ...this.#logFields, ...logFields, seconds, bytesOut: this.#bytesOut }, detailedText)
    return true
  }

  get #logFields(): { peer: string; stream: string; user: string | undefined } {
    const { id, identity } = this.#connection
    return { peer: this.#address, stream: id, user: identity.user }
  }
}
