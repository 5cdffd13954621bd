import { GatewayError } from '../../base/errors.js'
import type { Gap } from '../../hub/event-sink.js'
import { publisherAccount } from '../../transports/publishing.js'
import {
  PushSocket,
  type PushSocketContext,
  type PushSocketOptions,
  type SocketClient,
} from '../../transports/socket/push-socket.js'
import { recordEncoder, recordsIn, type SocketRecord } from './socket-records.js'
import { topicRoot } from './socket-topic.js'

/** Bytes of one connection's messages that are in flight to the broker. */
const maxInProgress = 1024 ** 2

/** Unanswered pings that end a connection. */
const maxUnanswered = 1

/** Parts that all of RRR's WebSockets share. */
export interface RrrSocketContext extends PushSocketContext {
  /** Whether binary frames are accepted and sent. */
  readonly binary: boolean
}

/**
 * One WebSocket of RRR's: the client's messages are published on `httpserver/websocket/<connection>/<topic>`, and messages that
 * others publish below `httpserver/websocket/<connection>/` are sent to it. It also ends when a message cannot be published.
 */
export class RrrSocketConnection extends PushSocket<Buffer> {
  readonly #context: RrrSocketContext
  readonly #topic: string
  /** Payloads that it published and that the hub has not delivered yet, in order. */
  #published: Buffer[] = []
  #pause: NodeJS.Timeout | undefined

  /** @throws {GatewayError} `shutting-down` */
  constructor(
    context: RrrSocketContext,
    client: SocketClient,
    topic: string,
    createWriter: PushSocketOptions['createWriter'],
  ) {
    const filtersOf = (id: string): string[] => [`${topicRoot}${id}/#`]
    const encode = recordEncoder(context.binary)
    super(context, { ...client, encode, filtersOf, maxInProgress, maxUnanswered, createWriter })
    this.#context = context
    this.#topic = `${topicRoot}${this.connection.id}/${topic}`
    this.log.info('connected')
  }

  override write(data: Buffer): boolean {
    const frames: Buffer[] = []
    for (const record of recordsIn(data)) {
      if (this.#isEcho(record)) continue
      if (record.frame.length === 0) this.log.info('Skipped a message for a WebSocket that is not text')
      else frames.push(record.frame)
    }
    return frames.length === 0 || super.write(Buffer.concat(frames))
  }

  /** RRR's protocol has no message for it. */
  gap({ reason }: Gap): void {
    this.log.warn({ reason }, 'Messages for a WebSocket are missing')
    this.#published = []
  }

  /** A connection's own topics need no permission. */
  renewed(): void {}

  received(message: string | Buffer): void {
    if (this.closed) return
    if (typeof message !== 'string' && !this.#context.binary) return this.end(new GatewayError('binary-frame'))
    const payload = Buffer.from(message)
    this.inbox.push(payload, payload.length)
  }

  override end(error: GatewayError): void {
    clearTimeout(this.#pause)
    super.end(error)
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
  protected isReady(): boolean {
    const { wait } = this.rate
    if (wait === 0) return true
    this.#pause ??= setTimeout(() => {
      this.#pause = undefined
      this.inbox.goOn()
    }, wait).unref()
    return false
  }

  protected take(payload: Buffer): Promise<void> {
    this.rate.spend({ topic: this.#topic, payload })
    this.#published.push(payload)
    return this.#context.push.publisher
      .publish({ topic: this.#topic, payload, qos: 1, retain: false }, { by: publisherAccount(this.caller) })
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
