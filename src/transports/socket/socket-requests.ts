import type { Permissions } from '../../access/topic-rules.js'
import type { Identity } from '../../base/identity.js'
import { ParameterError } from '../../http/parameters.js'
import type { HeldFilters } from '../../hub/filter-quota.js'
import type { Subscription } from '../../hub/hub.js'
import type { PresenceHandle } from '../../presence/presence.js'
import { topicPredicate } from '../../topics/match.js'
import { levelCount } from '../../topics/topic-syntax.js'
import type { LiveConnection } from '../live-connections.js'
import type { Publication } from '../message-json.js'
import {
  type ConnectionRate,
  type PublishingCaller,
  publisherAccount,
  requireNoWait,
  withReceipts,
} from '../publishing.js'
import { receiptJson, refusedTopic, unknownEvent } from '../receipts.js'
import type { TransportContext } from '../transport-context.js'
import { RequestRefusal } from './socket-errors.js'
import type { ClientMessage, MessageOf } from './socket-messages.js'

/** Filters of one connection without its own topic, their levels, and their UTF-16 units. */
const [maxFilters, maxLevels, maxLength] = [1000, 10_000, 256 * 1024]
/** A change counts as one request, and as one more for each so many filters it leads to: all are walked. */
const filtersPerRequest = 100

export interface SocketParts {
  readonly connection: LiveConnection
  readonly caller: PublishingCaller
  readonly rate: ConnectionRate
  readonly device: string
  /** Its own topics, which need no permission: for its messages, and for messages to it. */
  readonly topics: { readonly in: string; readonly out: string }
  readonly subscription: Subscription
  readonly presence: PresenceHandle
  /** Quota of its filters. */
  readonly held: HeldFilters
  /** Its filters at the start, without its own topic. */
  readonly filters: readonly string[]
}

export type SocketResponse = Readonly<Record<string, unknown>>

/** Handles the messages of one connection. */
export class SocketRequests {
  readonly #context: TransportContext
  readonly #parts: SocketParts
  /** Its filters after all changes, without its own topic. */
  readonly #filters: Set<string>
  #permissions: Permissions

  constructor(context: TransportContext, parts: SocketParts) {
    this.#context = context
    this.#parts = parts
    this.#filters = new Set(parts.filters)
    this.#permissions = context.gate.permissionsOf(parts.connection.identity)
  }

  /**
   * Handles a message.
   *
   * @param done called once with the response, in the tick from which on it is true
   * @throws {Error} rejects with what `failureOf` reads
   */
  async do(message: ClientMessage, done: (answer: SocketResponse) => void): Promise<void> {
    switch (message.type) {
      case 'subscribe':
        return this.#subscribe(message, done)
      case 'unsubscribe':
        return this.#unsubscribe(message, done)
      case 'publish':
        return done(await this.#publish(message))
      case 'send':
        return done(
          await this.#send({ message: { ...message.message, topic: this.#parts.topics.in }, receipt: undefined }),
        )
      case 'receipt':
        return done(await this.#record(message))
      case 'authenticate':
        return done(await this.#authenticate(message))
    }
  }

  /**
   * Applies the permissions of a new identity of the same user.
   *
   * @returns the filters without permission, which are removed
   */
  renewed(identity: Identity): readonly string[] {
    this.#permissions = this.#context.gate.permissionsOf(identity)
    const lost = [...this.#filters].filter(filter => !this.#permissions.maySubscribe(filter))
    if (lost.length > 0) void this.#remove(lost, () => {})
    return lost
  }

  #subscribe({ topics, cursor }: MessageOf<'subscribe'>, done: (answer: SocketResponse) => void): Promise<void> {
    this.#spend(topics.length)
    const { subscription, presence, held, topics: own } = this.#parts
    const refused = topics.findIndex(filter => filter !== own.out && !this.#permissions.maySubscribe(filter))
    if (refused !== -1) throw RequestRefusal.ofTopic(`topics[${refused}]`, topics[refused] ?? '')
    const added = new Set(topics.filter(filter => filter !== own.out && !this.#filters.has(filter)))
    const all = [...this.#filters, ...added]
    requireRoom(all)
    held.change(all)
    for (const filter of added) this.#filters.add(filter)
    if (added.size > 0) presence.add([...added])
    return this.#change(applied => subscription.change({ add: [...added], cursor, applied }), done)
  }

  #unsubscribe({ topics }: MessageOf<'unsubscribe'>, done: (answer: SocketResponse) => void): Promise<void> {
    this.#spend(0)
    return this.#remove(
      topics.filter(filter => this.#filters.has(filter)),
      done,
    )
  }

  /** Counts a change in the rate limit. @throws {GatewayError} `too-many-requests` */
  #spend(added: number): void {
    this.#context.gate.spend(this.#parts.caller.client, 1 + (this.#filters.size + added) / filtersPerRequest)
  }

  #remove(filters: readonly string[], done: (answer: SocketResponse) => void): Promise<void> {
    const { subscription, presence, held } = this.#parts
    for (const filter of filters) this.#filters.delete(filter)
    held.change(this.#filters)
    if (filters.length > 0) presence.remove(filters)
    return this.#change(applied => subscription.change({ remove: filters, applied }), done)
  }

  /** Resolves when the filters have changed; `done` is called before any event of the new ones. */
  #change(
    begin: (applied: (filters: readonly string[]) => void) => void,
    done: (answer: SocketResponse) => void,
  ): Promise<void> {
    return new Promise(resolve => {
      begin(filters => {
        done({ topics: filters.filter(filter => filter !== this.#parts.topics.out) })
        resolve()
      })
    })
  }

  async #publish({ message, receipt }: MessageOf<'publish'>): Promise<SocketResponse> {
    const { topic } = message
    if (topic !== this.#parts.topics.in && !this.#permissions.mayPublish(topic)) {
      throw RequestRefusal.ofTopic('topic', topic)
    }
    if (receipt && !topicPredicate(this.#context.push.config.topics)(topic)) {
      throw new ParameterError('receipt', 'receipt is not available here: push does not cover this topic (push.topics)')
    }
    return this.#send({ message, receipt })
  }

  /** @throws {GatewayError} rejects with `publishing-too-fast`, and as `withReceipts` */
  async #send(publication: Publication): Promise<SocketResponse> {
    const { caller, rate } = this.#parts
    const { receipts, publisher } = this.#context.push
    const { message } = publication
    requireNoWait(rate.wait)
    rate.spend(message)
    const by = publisherAccount(caller)
    const event = await withReceipts(receipts, publication, by, acknowledgements =>
      publisher.publish(message, { by, acknowledgements }),
    )
    return { id: event?.id ?? null }
  }

  async #record({ id, status, detail }: MessageOf<'receipt'>): Promise<SocketResponse> {
    const { receipts } = this.#context.push
    const { device, topics, connection } = this.#parts
    const topic = await receipts.topicOf(id)
    if (topic === undefined) throw new RequestRefusal('id', unknownEvent)
    if (topic !== topics.out && !this.#permissions.mayRead(topic)) {
      throw new RequestRefusal('id', refusedTopic)
    }
    const { user } = connection.identity
    const recorded = await receipts.record(id, { device, status, detail, user })
    if (!recorded) throw new RequestRefusal('id', unknownEvent)
    return { id, ...receiptJson(recorded.receipt) }
  }

  async #authenticate({ token }: MessageOf<'authenticate'>): Promise<SocketResponse> {
    const { gate, connections } = this.#context
    const { connection, caller } = this.#parts
    const { client } = caller
    gate.spend(client, 1)
    const identity = await gate.identifyToken(token, client)
    connections.renew(connection.id, identity)
    return { expires: identity.expires === undefined ? null : new Date(identity.expires).toISOString() }
  }
}

/** Checks the bounds of one connection's filters. @throws {ParameterError} */
function requireRoom(filters: readonly string[]): void {
  let [levels, length] = [0, 0]
  for (const filter of filters) {
    levels += levelCount(filter)
    length += filter.length
  }
  const problem =
    filters.length > maxFilters
      ? `become more than ${maxFilters}`
      : levels > maxLevels
        ? `have more than ${maxLevels} levels`
        : length > maxLength
          ? `have more than ${maxLength} characters`
          : undefined
  if (problem !== undefined) throw new ParameterError('topics', `topics must not ${problem} in all`)
}
