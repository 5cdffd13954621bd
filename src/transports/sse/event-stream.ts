import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import type { Caller } from '../../http/api-gate.js'
import type { CloseReason, EventSink, Gap } from '../../hub/event-sink.js'
import type { SubscribeOptions, Subscription } from '../../hub/hub.js'
import type { PresenceHandle } from '../../presence/presence.js'
import type { EncodeCursor } from '../event-json.js'
import type { Heartbeats, HeartbeatTarget } from '../heartbeats.js'
import type { ConnectionEvents, LiveConnection } from '../live-connections.js'
import type { StreamWriter } from '../stream-writer.js'
import { authorizeSubscribe, holdSubscriber, hubError } from '../subscriptions.js'
import type { TransportContext } from '../transport-context.js'

/** Milliseconds that a client has to read its last bytes. */
const lingerTime = 2000

/** Topic filters in a log line. */
const maxLoggedFilters = 10

export interface ControlEvents {
  gap(gap: Gap): Buffer
  /** The last event; `cursor` is for the next stream. */
  end(error: GatewayError, cursor?: string): Buffer
}

/** Shared by all event streams of one kind. */
export interface StreamContext extends TransportContext {
  readonly controlEvents: ControlEvents
  readonly heartbeats: Heartbeats
  /** Whether a stream ends after the silence of a heartbeat. Default: false. */
  readonly endsWhenIdle?: boolean
  /** Encodes the event that sets the client's `Last-Event-ID`. */
  readonly cursorEvents: EncodeCursor
  /** The bytes of a heartbeat. */
  readonly heartbeat: Buffer
  /** Whether `cursorEvents` follow a heartbeat if the cursor has moved. Default: false. */
  readonly sendsCursorWhenIdle?: boolean
}

export interface StreamOptions
  extends Pick<SubscribeOptions, 'filters' | 'encode' | 'cursor' | 'last' | 'limit'>,
    Omit<StreamWriter, 'begin'> {
  readonly caller: Caller
  readonly device: string
}

/**
 * One open event stream. It counts as a connection and is present until it ends: the client leaves, the identity expires or loses its permission, the
 * hub closes the subscription, or the gateway shuts down.
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
  /** The cursor of the last control event. */
  #sentCursor: string | undefined
  readonly #startedAt = performance.now()
  #bytesOut = 0
  #closed = false

  /**
   * Writes nothing in this tick of the event loop.
   *
   * @throws {GatewayError} as `holdSubscriber`, and `shutting-down`
   */
  constructor(context: StreamContext, options: StreamOptions) {
    const { caller, device, body, peer, filters, encode, cursor, last, limit } = options
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
    context.log.info({ ...this.#logFields, ...fields }, 'event stream connected')
  }

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
    this.#sentCursor = this.#subscription.cursor
    this.write(this.#context.cursorEvents(this.#sentCursor))
  }

  beat(): void {
    // The queued bytes are a sign of life themselves.
    if (this.#body.writableNeedDrain) return
    const { endsWhenIdle, heartbeat, sendsCursorWhenIdle } = this.#context
    if (endsWhenIdle) return this.end(new GatewayError('complete'))
    this.write(heartbeat)
    const { cursor } = this.#subscription
    if (sendsCursorWhenIdle && cursor !== undefined && cursor !== this.#sentCursor) this.live()
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

  end(error: GatewayError): void {
    if (!this.#end(error)) return
    const body = this.#body.end(this.#context.controlEvents.end(error, this.#subscription.cursor))
    const timer = setTimeout(() => body.destroy(), lingerTime).unref()
    body.once('close', () => clearTimeout(timer))
  }

  /** Releases everything but the writer; `false` if that has been done. */
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
