import { networkOf } from '../../access/limits.js'
import type { Rate } from '../../access/rate-limits.js'
import type { ConnectionLog } from '../../base/connection-log.js'
import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import type { CloseReason, EventSink, Gap } from '../../hub/event-sink.js'
import type { HeldFilters } from '../../hub/filter-quota.js'
import type { SubscribeOptions, Subscription } from '../../hub/hub.js'
import type { PresenceHandle } from '../../presence/presence.js'
import type { Heartbeats, HeartbeatTarget } from '../heartbeats.js'
import type { ConnectionEvents, LiveConnection } from '../live-connections.js'
import { ConnectionRate, type PublishingCaller } from '../publishing.js'
import { deviceOf, hubError } from '../subscriptions.js'
import type { TransportContext } from '../transport-context.js'
import { SocketInbox } from './socket-inbox.js'
import type { SocketWriter, SocketWriterListener } from './socket-writer.js'
import type { OpenSocket } from './web-sockets.js'

export interface PushSocketContext extends TransportContext {
  /** Pings silent clients. */
  readonly pings: Heartbeats
  /** Publish rate of one connection; left out for no limit. */
  readonly publishes?: Rate | undefined
}

export interface SocketClient {
  readonly identity: Identity
  readonly address: string
  readonly log: ConnectionLog
}

export interface PushSocketOptions extends Pick<SubscribeOptions, 'encode' | 'cursor' | 'last'>, SocketClient {
  /** Its name; left out for the id of the connection. */
  readonly device?: string
  /** The filters, by the id of the connection. */
  readonly filtersOf: (id: string) => readonly string[]
  /** Quota of its filters. */
  readonly held?: HeldFilters
  /** Size of the messages that are handled at the same time, in the unit of `receive`. */
  readonly maxInProgress: number
  /** Unanswered pings that end it. */
  readonly maxUnanswered: number
  /** Attaches the writer to its WebSocket, of which nothing may have been read. */
  readonly createWriter: (listener: SocketWriterListener) => SocketWriter
}

/**
 * One plain WebSocket, whatever its messages. It ends when the client leaves or does not answer pings, the identity expires, the hub closes the
 * subscription, or the gateway shuts down.
 */
export abstract class PushSocket<Message> implements EventSink, ConnectionEvents, SocketWriterListener, OpenSocket {
  protected readonly connection: LiveConnection
  protected readonly presence: PresenceHandle
  protected readonly subscription: Subscription
  protected readonly device: string
  protected readonly caller: PublishingCaller
  protected readonly rate: ConnectionRate
  protected readonly writer: SocketWriter
  protected readonly log: ConnectionLog
  protected readonly inbox: SocketInbox<Message>
  protected closed = false
  readonly #context: PushSocketContext
  readonly #held: HeldFilters | undefined
  readonly #pings: HeartbeatTarget
  #unanswered = 0
  #resume: (() => void) | undefined

  /**
   * Writes nothing in this tick of the event loop.
   *
   * @throws {GatewayError} `shutting-down`
   */
  constructor(context: PushSocketContext, options: PushSocketOptions) {
    const { push, connections, pings, queue, bodies } = context
    const { identity, address, log, filtersOf, held, maxInProgress, maxUnanswered, createWriter, ...wanted } = options
    const { user } = identity
    this.#context = context
    this.#held = held
    this.log = log
    this.caller = { identity, client: { address } }
    this.rate = new ConnectionRate(context, this.caller)
    try {
      this.connection = connections.open(identity, this)
    } catch (error) {
      held?.release()
      throw error
    }
    const { id } = this.connection
    this.device = wanted.device ?? deviceOf(identity, id)
    const filters = filtersOf(id)
    const party = { device: this.device, user, address, transport: 'socket', topics: filters } as const
    this.presence = push.presence.enter(party)
    this.subscription = push.hub.subscribe({ ...wanted, filters, device: this.device, sink: this })
    this.#pings = { wroteAt: 0, beat: () => this.#ping(maxUnanswered) }
    this.writer = createWriter(this)
    this.inbox = new SocketInbox({
      ...{ writer: this.writer, queue, maxSize: maxInProgress, network: networkOf(address) },
      held: bodies.budget.open({ address, user }),
      refuse: error => this.end(error),
      isReady: () => this.isReady(),
      take: message => this.take(message),
    })
    pings.add(this.#pings)
    log.setBindings({ socket: id, device: this.device })
  }

  /** Whether the next message may be handled. */
  protected abstract isReady(): boolean
  /** Handles a message. It must neither throw nor reject. */
  protected abstract take(message: Message): Promise<unknown> | undefined
  abstract received(message: string | Buffer): void
  abstract gap(gap: Gap): void
  abstract renewed(identity: Identity): void

  /** Sends the last message. */
  protected sendEnd(_error: GatewayError, _cursor: string | undefined): void {}

  get bufferedBytes(): number {
    return this.writer.bufferedBytes
  }

  write(frames: Buffer): boolean {
    return this.writer.write(frames)
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  close(reason: CloseReason): void {
    this.end(hubError(reason))
  }

  alive(): void {
    if (this.closed) return
    this.presence.seen()
    this.#unanswered = 0
    this.#pings.wroteAt = this.#context.pings.tick
  }

  drained(): void {
    if (this.closed) return
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
    this.inbox.goOn()
  }

  end(error: GatewayError): void {
    if (this.closed) return
    this.closed = true
    const { pings, metrics, queue } = this.#context
    const { cursor } = this.subscription
    pings.delete(this.#pings)
    this.subscription.close()
    this.#held?.release()
    // With a thousand filters it takes some milliseconds, and a hundred sockets may close at the same time.
    queue.add({
      work: () => {
        this.presence.leave()
        return false
      },
    })
    this.connection.close()
    this.inbox.close()
    this.sendEnd(error, cursor)
    this.writer.finish(error)
    metrics.ended(error.reason)
    this.log[error.level]({ ...error.logFields, ...this.writer.logFields }, error.detailedText)
  }

  destroy(): void {
    this.writer.destroy()
  }

  #ping(maxUnanswered: number): void {
    // The pong would not be read.
    if (this.writer.isPaused && !this.writer.isFull) return
    if (this.#unanswered >= maxUnanswered) return this.end(new GatewayError('ping-timeout'))
    this.#unanswered++
    this.writer.ping()
  }
}
