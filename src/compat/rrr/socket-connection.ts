import { networkOf } from '../../access/limits.js'
import { type Rate, TokenBucket } from '../../access/rate-limits.js'
import type { ConnectionLog } from '../../base/connection-log.js'
import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import type { CloseReason, EventSink, Gap } from '../../hub/event-sink.js'
import type { Subscription } from '../../hub/hub.js'
import { sizeOf } from '../../journal/journal.js'
import type { PresenceHandle } from '../../presence/presence.js'
import type { Heartbeats, HeartbeatTarget } from '../../transports/heartbeats.js'
import type { ConnectionEvents, LiveConnection } from '../../transports/live-connections.js'
import { anonymousWait, countAnonymous, type PublishingCaller, publisherAccount } from '../../transports/publishing.js'
import { SocketInbox } from '../../transports/socket/socket-inbox.js'
import type { SocketWriter, SocketWriterListener } from '../../transports/socket/socket-writer.js'
import type { OpenSocket } from '../../transports/socket/web-sockets.js'
import { deviceOf, hubError } from '../../transports/subscriptions.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { recordEncoder, recordsIn, type SocketRecord } from './socket-records.js'
import { topicRoot } from './socket-topic.js'

/** Bytes of one connection's messages that are in flight to the broker. */
const maxInFlightBytes = 1024 ** 2

/** Parts that all of RRR's WebSockets share. */
export interface RrrSocketContext extends TransportContext {
  /** Pings silent clients. */
  readonly pings: Heartbeats
  /** Rate of one connection's messages; `undefined` for no limit. */
  readonly publishes: Rate | undefined
  /** Whether binary frames are accepted and sent. */
  readonly binary: boolean
}

/** One client, and its topic. */
export interface RrrSocketClient {
  readonly identity: Identity
  /** Address of the client. */
  readonly address: string
  readonly topic: string
  readonly log: ConnectionLog
}

/**
 * One WebSocket of RRR's: the client's messages are published on `httpserver/websocket/<connection>/<topic>`, and messages that
 * others publish below `httpserver/websocket/<connection>/` are sent to it. It ends when the client disconnects or is silent
 * for two ping intervals, when a message cannot be published, or as any other push connection.
 */
export class RrrSocketConnection
  implements EventSink, HeartbeatTarget, ConnectionEvents, SocketWriterListener, OpenSocket
{
  wroteAt = 0
  readonly #context: RrrSocketContext
  readonly #writer: SocketWriter
  readonly #log: ConnectionLog
  readonly #topic: string
  readonly #connection: LiveConnection
  readonly #presence: PresenceHandle
  readonly #subscription: Subscription
  readonly #bucket: TokenBucket | undefined
  readonly #caller: PublishingCaller
  readonly #inbox: SocketInbox<Buffer>
  /** Payloads that it published and that the hub has not delivered yet, in order. */
  #published: Buffer[] = []
  #pause: NodeJS.Timeout | undefined
  #awaitsPong = false
  #resume: (() => void) | undefined
  #closed = false

  /**
   * @param createWriter creates its writer on the WebSocket, of which nothing may have been read
   * @throws {GatewayError} `shutting-down`
   */
  constructor(
    context: RrrSocketContext,
    { identity, address, topic, log }: RrrSocketClient,
    createWriter: (listener: SocketWriterListener) => SocketWriter,
  ) {
    const { push, connections, pings, binary, publishes } = context
    this.#context = context
    this.#log = log
    this.#connection = connections.open(identity, this)
    const { id } = this.#connection
    this.#topic = `${topicRoot}${id}/${topic}`
    this.#bucket = publishes && new TokenBucket(publishes)
    this.#caller = { identity, client: { address } }
    const filters = [`${topicRoot}${id}/#`]
    const device = deviceOf(identity, id)
    this.#presence = push.presence.enter({
      ...{ device, user: identity.user, address },
      ...{ transport: 'socket', topics: filters },
    })
    this.#subscription = push.hub.subscribe({ filters, encode: recordEncoder(binary), device, sink: this })
    this.#writer = createWriter(this)
    this.#inbox = new SocketInbox({
      ...{ writer: this.#writer, queue: context.queue, maxSize: maxInFlightBytes },
      network: networkOf(address),
      held: context.bodies.budget.open({ address, user: identity.user }),
      refuse: error => this.end(error),
      isReady: () => this.#mayPublish(),
      take: payload => this.#publish(payload),
    })
    pings.add(this)
    log.setBindings({ socket: id, device })
    log.info('connected')
  }

  get bufferedBytes(): number {
    return this.#writer.bufferedBytes
  }

  write(data: Buffer): boolean {
    const frames: Buffer[] = []
    for (const record of recordsIn(data)) {
      if (this.#isEcho(record)) continue
      if (record.frame.length === 0) this.#log.info('Skipped a message for a WebSocket that is not text')
      else frames.push(record.frame)
    }
    return frames.length === 0 || this.#writer.write(Buffer.concat(frames))
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  /** RRR's protocol has no message for it. */
  gap({ reason }: Gap): void {
    this.#log.warn({ reason }, 'Messages for a WebSocket are missing')
    this.#published = []
  }

  close(reason: CloseReason): void {
    this.end(hubError(reason))
  }

  /** A connection's own topics need no permission. */
  renewed(): void {}

  received(message: string | Buffer): void {
    if (this.#closed) return
    if (typeof message !== 'string' && !this.#context.binary) return this.end(new GatewayError('binary-frame'))
    const payload = Buffer.from(message)
    this.#inbox.push(payload, payload.length)
  }

  alive(): void {
    if (this.#closed) return
    this.#presence.seen()
    this.#awaitsPong = false
    this.wroteAt = this.#context.pings.tick
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

  beat(): void {
    // A paused reader would not read the pong.
    if (this.#writer.isPaused && !this.#writer.isFull) return
    if (this.#awaitsPong) return this.end(new GatewayError('ping-timeout'))
    this.#awaitsPong = true
    this.#writer.ping()
  }

  end(error: GatewayError): void {
    if (this.#closed) return
    this.#closed = true
    const { pings, metrics } = this.#context
    clearTimeout(this.#pause)
    pings.delete(this)
    this.#subscription.close()
    this.#presence.leave()
    this.#connection.close()
    this.#inbox.close()
    this.#writer.finish(error)
    metrics.ended(error.reason)
    this.#log[error.level]({ ...error.logFields, ...this.#writer.logFields }, error.detailedText)
  }

  destroy(): void {
    this.#writer.destroy()
  }

  /**
   * Whether it is a message that this connection published itself. MQTT 3.1.1 has no other identification than topic and payload;
   * if another client publishes an equal message at the same time, either of the two is skipped, which makes no difference.
   */
  #isEcho({ topic, payload }: SocketRecord): boolean {
    if (this.#published.length === 0 || topic !== this.#topic) return false
    const at = this.#published.findIndex(published => published.equals(payload))
    if (at !== -1) this.#published.splice(at, 1)
    return at !== -1
  }

  /** RRR's protocol has no “too fast” either: beyond the rate, the connection is read later. */
  #mayPublish(): boolean {
    const wait = Math.max(this.#bucket?.wait() ?? 0, anonymousWait(this.#context.anonymousPublishes, this.#caller))
    if (wait === 0) return true
    this.#pause ??= setTimeout(() => {
      this.#pause = undefined
      this.#inbox.goOn()
    }, wait).unref()
    return false
  }

  #publish(payload: Buffer): Promise<void> {
    this.#bucket?.take()
    const size = sizeOf({ topic: this.#topic, payload })
    countAnonymous(this.#context.anonymousPublishes, this.#caller, 1, size)
    this.#published.push(payload)
    return this.#context.push.publisher
      .publish({ topic: this.#topic, payload, qos: 1, retain: false }, { by: publisherAccount(this.#caller) })
      .then(
        event => {
          // Push does not cover its topic: the hub will not deliver it.
          if (!event) this.#published = this.#published.filter(published => published !== payload)
        },
        // The client learns that its message is lost by the end of the connection, and can send it again.
        error => this.end(GatewayError.from(error)),
      )
  }
}
