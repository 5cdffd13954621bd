import type { Client } from '../../access/client-address.js'
import { accountOf, networkOf } from '../../access/limits.js'
import type { ConnectionLog } from '../../base/connection-log.js'
import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import { ParameterError } from '../../http/parameters.js'
import type { CloseReason, EventSink, Gap } from '../../hub/event-sink.js'
import type { HeldFilters } from '../../hub/filter-quota.js'
import type { SubscribeOptions, Subscription } from '../../hub/hub.js'
import type { PresenceHandle } from '../../presence/presence.js'
import type { HeartbeatTarget } from '../heartbeats.js'
import type { ConnectionEvents, LiveConnection } from '../live-connections.js'
import { hubError } from '../subscriptions.js'
import type { SocketContext } from './socket-context.js'
import { failureOf } from './socket-errors.js'
import { encodeEnd, encodeGap, messageFrame } from './socket-frames.js'
import { SocketInbox } from './socket-inbox.js'
import { parseMessage, type Ref, readMessage, refOf } from './socket-messages.js'
import { type OwnTopics, SocketRequests, type SocketResponse } from './socket-requests.js'
import type { SocketWriter, SocketWriterListener } from './socket-writer.js'

/** UTF-16 units of the messages of one connection that are handled at the same time. */
const maxUnderWay = 256 * 1024
/** Consecutive invalid messages that end a connection. */
const maxErrors = 100
/** Unanswered pings that end a connection. */
const maxUnanswered = 2

/** Topic filters in a log line. */
const maxLoggedFilters = 10

/** A new socket. */
export interface NewSocket extends Pick<SubscribeOptions, 'encode' | 'cursor' | 'last'> {
  readonly identity: Identity
  readonly client: Client
  readonly device: string
  /** Its filters, besides its own topic. */
  readonly filters: readonly string[]
  readonly log: ConnectionLog
}

/**
 * One plain WebSocket: events down, requests up, each answered. It ends when the client leaves, does not answer two pings or sends invalid messages
 * only, the identity expires, the hub closes the subscription, or the gateway shuts down.
 */
export class SocketConnection implements EventSink, HeartbeatTarget, ConnectionEvents, SocketWriterListener {
  wroteAt = 0
  readonly #context: SocketContext
  readonly #writer: SocketWriter
  readonly #log: ConnectionLog
  readonly #held: HeldFilters
  readonly #connection: LiveConnection
  readonly #presence: PresenceHandle
  readonly #subscription: Subscription
  readonly #requests: SocketRequests
  readonly #pings: HeartbeatTarget
  #unanswered = 0
  readonly #inbox: SocketInbox<string | undefined>
  /** Whether the next message depends on the one that is being handled. */
  #exclusive = false
  #errors = 0
  #resume: (() => void) | undefined
  #closed = false

  /**
   * Writes nothing but the welcome in this tick of the event loop.
   *
   * @param makeWriter attaches it to its WebSocket, of which nothing may have been read
   * @throws {GatewayError} `shutting-down`, `filters-too-many`
   */
  constructor(
    context: SocketContext,
    options: NewSocket,
    makeWriter: (listener: SocketWriterListener) => SocketWriter,
  ) {
    const { push, connections, heartbeats, pings } = context
    const { identity, client, device, filters, log, ...wanted } = options
    this.#context = context
    this.#log = log
    this.#held = push.filterQuota.hold(accountOf(identity.user, client.address), filters)
    this.#connection = this.#open(connections, identity)
    const { id } = this.#connection
    const topics: OwnTopics = { in: `socket/${id}/in`, out: `socket/${id}/out` }
    const all = [...new Set([topics.out, ...filters])]
    this.#presence = push.presence.enter({
      ...{ device, user: identity.user, address: client.address },
      ...{ transport: 'socket', topics: all },
    })
    this.#subscription = push.hub.subscribe({ ...wanted, filters: all, device, sink: this })
    const parts = {
      connection: this.#connection,
      subscription: this.#subscription,
      presence: this.#presence,
      held: this.#held,
    }
    this.#requests = new SocketRequests(context, { ...parts, client, device, topics, filters })
    this.#pings = { wroteAt: 0, beat: () => this.#ping() }
    this.#writer = makeWriter(this)
    this.#inbox = new SocketInbox({
      ...{ writer: this.#writer, queue: context.queue, maxSize: maxUnderWay },
      network: networkOf(client.address),
      held: context.bodies.budget.open({ address: client.address, user: identity.user }),
      refuse: error => this.end(error),
      isReady: () => !this.#exclusive,
      take: text => this.#do(text),
    })
    heartbeats.add(this)
    pings.add(this.#pings)
    log.setBindings({ socket: id, device })
    log.info({ topics: filters.slice(0, maxLoggedFilters) }, 'connected')
    this.#send('welcome', { connection: id, device, topics, heartbeat: push.config.heartbeat / 1000 })
  }

  #open(connections: SocketContext['connections'], identity: Identity): LiveConnection {
    try {
      return connections.open(identity, this)
    } catch (error) {
      this.#held.release()
      throw error
    }
  }

  /** Bytes that are queued for the client. */
  get bufferedBytes(): number {
    return this.#writer.bufferedBytes
  }

  write(frames: Buffer): boolean {
    this.wroteAt = this.#context.heartbeats.tick
    return this.#writer.write(frames)
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  gap(gap: Gap): void {
    this.write(encodeGap(gap))
  }

  live(): void {
    this.write(this.#context.cursorEvents.of(this.#subscription.cursor))
  }

  close(reason: CloseReason): void {
    this.end(hubError(reason))
  }

  beat(): void {
    // Queued bytes are a sign of life themselves. Without a cursor, there is nothing to send.
    const { cursor } = this.#subscription
    if (!this.#writer.isFull && cursor !== undefined) this.write(this.#context.cursorEvents.of(cursor))
  }

  renewed(identity: Identity): void {
    const { isLive } = this.#subscription
    const lost = this.#requests.renewed(identity)
    if (lost.length === 0) return
    // Events of these filters may be under way.
    if (!isLive) return this.end(new GatewayError('topic-refused', { hint: lost[0]?.slice(0, 256) ?? '' }))
    this.#send('error', { ...failureOf(new GatewayError('topic-refused')), topics: lost })
  }

  received(message: string | Buffer): void {
    const text = typeof message === 'string' ? message : undefined
    this.#inbox.push(text, text?.length ?? 0)
  }

  alive(): void {
    if (this.#closed) return
    this.#presence.seen()
    this.#unanswered = 0
    this.#pings.wroteAt = this.#context.pings.tick
  }

  drained(): void {
    if (this.#closed) return
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
    this.#inbox.goOn()
  }

  over(error: GatewayError): void {
    this.end(error)
  }

  end(error: GatewayError): void {
    if (this.#closed) return
    this.#closed = true
    const { heartbeats, pings, metrics, queue } = this.#context
    const { cursor } = this.#subscription
    heartbeats.delete(this)
    pings.delete(this.#pings)
    this.#subscription.close()
    this.#held.release()
    // With a thousand filters it takes some milliseconds, and a hundred sockets may close at the same time.
    queue.add({
      work: () => {
        this.#presence.leave()
        return false
      },
    })
    this.#connection.close()
    this.#inbox.close()
    this.#writer.write(encodeEnd(error, cursor))
    this.#writer.finish(error)
    metrics.ended(error.reason)
    this.#log[error.level]({ ...error.logFields, ...this.#writer.logFields }, error.detailedText)
  }

  /** Destroys its connection. */
  destroy(): void {
    this.#writer.destroy()
  }

  #ping(): void {
    // The pong would not be read.
    if (this.#writer.isPaused && !this.#writer.isFull) return
    if (this.#unanswered >= maxUnanswered) return this.end(new GatewayError('ping-timeout'))
    this.#unanswered++
    this.#writer.ping()
  }

  #do(text: string | undefined): Promise<void> | undefined {
    let ref: Ref
    try {
      if (text === undefined) throw new ParameterError('', 'The message must be text')
      const value = parseMessage(text, this.#context.bodies.jsonValues)
      ref = refOf(value)
      const message = readMessage(value)
      this.#exclusive = message.type === 'authenticate'
      return this.#requests
        .do(message, answer => this.#succeed(ref, answer))
        .catch(error => this.#fail(ref, error))
        .finally(() => {
          if (message.type === 'authenticate') this.#exclusive = false
        })
    } catch (error) {
      this.#fail(ref, error)
      return undefined
    }
  }

  #succeed(ref: Ref, answer: SocketResponse): void {
    this.#errors = 0
    this.#send('ok', { ref, ...answer })
  }

  #fail(ref: Ref, error: unknown): void {
    if (this.#closed) return
    const failure = failureOf(error)
    if (error instanceof GatewayError) this.#context.metrics.refused(error.reason)
    this.#send('error', { ref, ...failure })
    // Errors of the gateway do not count.
    if (failure.status >= 500) {
      if (failure.reason === 'internal-error') this.#log.error({ err: error }, 'failed to handle a message of a socket')
      return
    }
    this.#errors++
    if (this.#errors >= maxErrors) this.end(new GatewayError('too-many-errors'))
  }

  #send(type: string, members: object): void {
    if (!this.#closed) this.write(messageFrame(type, members))
  }
}
