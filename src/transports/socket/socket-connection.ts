import { accountOf } from '../../access/limits.js'
import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import { ParameterError } from '../../http/parameters.js'
import type { Gap } from '../../hub/event-sink.js'
import type { EncodeCursor } from '../event-json.js'
import type { Heartbeats, HeartbeatTarget } from '../heartbeats.js'
import { PushSocket, type PushSocketContext, type PushSocketOptions } from './push-socket.js'
import { failureOf } from './socket-errors.js'
import { encodeEnd, encodeGap, messageFrame } from './socket-frames.js'
import { parseMessage, type Ref, readMessage, refOf } from './socket-messages.js'
import { SocketRequests, type SocketResponse } from './socket-requests.js'

/** UTF-16 units of the messages of one connection that are handled at the same time. */
const maxInProgress = 256 * 1024
/** Consecutive invalid messages that end a connection. */
const maxErrors = 100
/** Unanswered pings that end a connection. */
const maxUnanswered = 2

/** Topic filters in a log line. */
const maxLoggedFilters = 10

export interface SocketContext extends PushSocketContext {
  /** Sends the cursor to silent sockets. */
  readonly heartbeats: Heartbeats
  readonly cursorEvents: EncodeCursor
}

export interface NewSocket
  extends Omit<PushSocketOptions, 'filtersOf' | 'held' | 'maxInProgress' | 'maxUnanswered' | 'createWriter'> {
  /** Its filters, besides its own topic. */
  readonly filters: readonly string[]
}

/** One socket: events down, requests up, each answered. Invalid messages in a row end it. */
export class SocketConnection extends PushSocket<string | undefined> implements HeartbeatTarget {
  wroteAt = 0
  readonly #context: SocketContext
  readonly #requests: SocketRequests
  /** Whether the next message depends on the one that is being handled. */
  #exclusive = false
  #errors = 0

  /**
   * Writes nothing but the welcome in this tick of the event loop.
   *
   * @throws {GatewayError} `shutting-down`, `filters-too-many`
   */
  constructor(
    context: SocketContext,
    { filters, ...options }: NewSocket,
    createWriter: PushSocketOptions['createWriter'],
  ) {
    const held = context.push.filterQuota.hold(accountOf(options.identity.user, options.address), filters)
    const filtersOf = (id: string): string[] => [...new Set([ownTopics(id).out, ...filters])]
    super(context, { ...options, filtersOf, held, maxInProgress, maxUnanswered, createWriter })
    this.#context = context
    const { connection, subscription, presence, device, caller, rate } = this
    const topics = ownTopics(connection.id)
    const parts = { connection, subscription, presence, device, caller, rate, held, topics, filters }
    this.#requests = new SocketRequests(context, parts)
    context.heartbeats.add(this)
    this.log.info({ topics: filters.slice(0, maxLoggedFilters) }, 'connected')
    const heartbeat = context.push.config.heartbeat / 1000
    this.#send('welcome', { connection: connection.id, device, topics, heartbeat })
  }

  override write(frames: Buffer): boolean {
    this.wroteAt = this.#context.heartbeats.tick
    return super.write(frames)
  }

  gap(gap: Gap): void {
    this.write(encodeGap(gap))
  }

  live(): void {
    this.write(this.#context.cursorEvents(this.subscription.cursor))
  }

  beat(): void {
    // Queued bytes are a sign of life themselves. Without a cursor, there is nothing to send.
    if (!this.writer.isFull && this.subscription.cursor !== undefined) this.live()
  }

  renewed(identity: Identity): void {
    const { isLive } = this.subscription
    const lost = this.#requests.renewed(identity)
    if (lost.length === 0) return
    // Events of these filters may be under way.
    if (!isLive) return this.end(new GatewayError('topic-refused', { hint: lost[0]?.slice(0, 256) ?? '' }))
    this.#send('error', { ...failureOf(new GatewayError('topic-refused')), topics: lost })
  }

  received(message: string | Buffer): void {
    const text = typeof message === 'string' ? message : undefined
    this.inbox.push(text, text?.length ?? 0)
  }

  protected isReady(): boolean {
    return !this.#exclusive
  }

  protected take(text: string | undefined): Promise<void> | undefined {
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

  protected override sendEnd(error: GatewayError, cursor: string | undefined): void {
    this.#context.heartbeats.delete(this)
    this.writer.write(encodeEnd(error, cursor))
  }

  #succeed(ref: Ref, answer: SocketResponse): void {
    this.#errors = 0
    this.#send('ok', { ref, ...answer })
  }

  #fail(ref: Ref, error: unknown): void {
    if (this.closed) return
    const failure = failureOf(error)
    if (error instanceof GatewayError) this.#context.metrics.refused(error.reason)
    this.#send('error', { ref, ...failure })
    // Errors of the gateway do not count.
    if (failure.status >= 500) {
      if (failure.reason === 'internal-error') this.log.error({ err: error }, 'failed to handle a message of a socket')
      return
    }
    this.#errors++
    if (this.#errors >= maxErrors) this.end(new GatewayError('too-many-errors'))
  }

  #send(type: string, members: object): void {
    if (!this.closed) this.write(messageFrame(type, members))
  }
}

/** The topics of one connection, which need no permission: for its messages, and for messages to it. */
function ownTopics(id: string): { readonly in: string; readonly out: string } {
  return { in: `socket/${id}/in`, out: `socket/${id}/out` }
}
