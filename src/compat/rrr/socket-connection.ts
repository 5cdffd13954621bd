import { networkOf } from '../../access/limits.js'
import { type Rate, TokenBucket } from '../../access/rate-limits.js'
import type { ConnectionLog } from '../../base/connection-log.js'
import { GatewayError } from '../../base/errors.js'
import type { Identity } from '../../base/identity.js'
import type { CloseReason, EventSink, Gap } from '../../hub/event-sink.js'
import type { Subscription } from '../../hub/hub.js'
import { sizeOf } from '../../journal/journal.js'
import type { PresenceHandle } from '../../presence/presence.js'
import { deviceOf } from '../../transports/device.js'
import type { Beating, Heartbeats } from '../../transports/heartbeats.js'
import { hubError } from '../../transports/hub-errors.js'
import type { ConnectionEvents, LiveConnection } from '../../transports/live-connections.js'
import { anonymousWait, type PublishingCaller, publisherName, spendAnonymous } from '../../transports/publish-pace.js'
import { SocketInbox } from '../../transports/socket/socket-inbox.js'
import type { SocketWriter, SocketWriterListener } from '../../transports/socket/socket-writer.js'
import type { OpenSocket } from '../../transports/socket/web-sockets.js'
import type { TransportContext } from '../../transports/transport-context.js'
import { recordEncoder, recordsIn, type SocketRecord } from './socket-records.js'
import { topicRoot } from './socket-topic.js'

/** Bytes of the messages of one connection that are on their way to the broker. */
const maxUnderWay = 1024 ** 2

/** What all of RRR's WebSockets share. */
export interface RrrSocketContext extends TransportContext {
  /** Has those that were silent for a while asked whether they are there. */
  readonly pings: Heartbeats
  /** Messages that one connection may publish; `undefined` for any number. */
  readonly publishes: Rate | undefined
  /** Whether frames of bytes are taken and sent. */
  readonly binary: boolean
}

/** Who is connected, and for which topic. */
export interface RrrSocketOrder {
  readonly identity: Identity
  /** Address of the client. */
  readonly address: string
  readonly topic: string
  readonly log: ConnectionLog
}

/**
 * One WebSocket of RRR's: what the client sends is published on `httpserver/websocket/<connection>/<topic>`, and what
 * anybody else publishes below `httpserver/websocket/<connection>/` is sent to it. It ends when its client goes or is silent
 * for two pings' time, when something that it said could not be published, or as any other push connection.
 */
export class RrrSocketConnection implements EventSink, Beating, ConnectionEvents, SocketWriterListener, OpenSocket {
  wroteAt = 0
  readonly #house: RrrSocketContext
  readonly #wire: SocketWriter
  readonly #log: ConnectionLog
  readonly #topic: string
  readonly #connection: LiveConnection
  readonly #attendance: PresenceHandle
  readonly #subscription: Subscription
  readonly #bucket: TokenBucket | undefined
  readonly #caller: PublishingCaller
  readonly #inbox: SocketInbox<Buffer>
  /** What it published itself and what has not come by, in order. */
  #own: Buffer[] = []
  #pause: NodeJS.Timeout | undefined
  #isAsked = false
  #resume: (() => void) | undefined
  #closed = false

  /**
   * @param makeWire puts it on its WebSocket; nothing may have been read from that
   * @throws {Ending} `shutting-down`
   */
  constructor(
    house: RrrSocketContext,
    { identity, address, topic, log }: RrrSocketOrder,
    makeWire: (listener: SocketWriterListener) => SocketWriter,
  ) {
    const { push, connections, pings, binary, publishes } = house
    this.#house = house
    this.#log = log
    this.#connection = connections.open(identity, this)
    const { id } = this.#connection
    this.#topic = `${topicRoot}${id}/${topic}`
    this.#bucket = publishes && new TokenBucket(publishes)
    this.#caller = { identity, client: { address } }
    const filters = [`${topicRoot}${id}/#`]
    const device = deviceOf(identity, id)
    this.#attendance = push.presence.enter({
      ...{ device, user: identity.user, address },
      ...{ transport: 'socket', topics: filters },
    })
    this.#subscription = push.hub.subscribe({ filters, encode: recordEncoder(binary), device, sink: this })
    this.#wire = makeWire(this)
    this.#inbox = new SocketInbox({
      ...{ wire: this.#wire, queue: house.queue, maxSize: maxUnderWay },
      network: networkOf(address),
      held: house.bodies.budget.open({ address, user: identity.user }),
      refuse: ending => this.end(ending),
      isReady: () => this.#mayPublish(),
      take: payload => this.#publish(payload),
    })
    pings.add(this)
    log.setBindings({ socket: id, device })
    log.info('connected')
  }

  get bufferedBytes(): number {
    return this.#wire.bufferedBytes
  }

  write(data: Buffer): boolean {
    const frames: Buffer[] = []
    for (const record of recordsIn(data)) {
      if (this.#isOwn(record)) continue
      if (record.frame.length === 0) this.#log.info('a message for a WebSocket is no text, and is left out')
      else frames.push(record.frame)
    }
    return frames.length === 0 || this.#wire.write(Buffer.concat(frames))
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  /** There is no word for it here. */
  gap({ reason }: Gap): void {
    this.#log.warn({ reason }, 'messages for a WebSocket are missing')
    this.#own = []
  }

  close(reason: CloseReason): void {
    this.end(hubError(reason))
  }

  /** Its own topics need no rule. */
  renewed(): void {}

  received(message: string | Buffer): void {
    if (this.#closed) return
    if (typeof message !== 'string' && !this.#house.binary) return this.end(new GatewayError('binary-frame'))
    const payload = Buffer.from(message)
    this.#inbox.push(payload, payload.length)
  }

  alive(): void {
    if (this.#closed) return
    this.#attendance.seen()
    this.#isAsked = false
    this.wroteAt = this.#house.pings.tick
  }

  drained(): void {
    if (this.#closed) return
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
    this.#inbox.goOn()
  }

  over(ending: GatewayError): void {
    this.end(ending)
  }

  beat(): void {
    // Its pong would not be read.
    if (this.#wire.isPaused && !this.#wire.isFull) return
    if (this.#isAsked) return this.end(new GatewayError('ping-timeout'))
    this.#isAsked = true
    this.#wire.ping()
  }

  end(ending: GatewayError): void {
    if (this.#closed) return
    this.#closed = true
    const { pings, metrics } = this.#house
    clearTimeout(this.#pause)
    pings.delete(this)
    this.#subscription.close()
    this.#attendance.leave()
    this.#connection.close()
    this.#inbox.close()
    this.#wire.finish(ending)
    metrics.ended(ending.reason)
    this.#log[ending.level]({ ...ending.logFields, ...this.#wire.logFields }, ending.detailedText)
  }

  destroy(): void {
    this.#wire.destroy()
  }

  /**
   * Whether it is what it published itself. MQTT 3.1.1 has nothing else to know a message by; where somebody publishes the
   * very same on the very topic at the same time, one of the two is taken for its own, which makes no difference.
   */
  #isOwn({ topic, payload }: SocketRecord): boolean {
    if (this.#own.length === 0 || topic !== this.#topic) return false
    const at = this.#own.findIndex(own => own.equals(payload))
    if (at !== -1) this.#own.splice(at, 1)
    return at !== -1
  }

  /** There is no word for “too fast” either: it is read more slowly. */
  #mayPublish(): boolean {
    const wait = Math.max(this.#bucket?.wait() ?? 0, anonymousWait(this.#house.anonymousPublishes, this.#caller))
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
    spendAnonymous(this.#house.anonymousPublishes, this.#caller, 1, size)
    this.#own.push(payload)
    return this.#house.push.publisher
      .publish({ topic: this.#topic, payload, qos: 1, retain: false }, { by: publisherName(this.#caller) })
      .then(
        event => {
          // It does not come by, as push does not get its topic.
          if (!event) this.#own = this.#own.filter(own => own !== payload)
        },
        // What a client said must not get lost without a word: it comes back, and says it again.
        error => this.end(GatewayError.from(error)),
      )
  }
}
