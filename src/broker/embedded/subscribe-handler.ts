import type { Client } from 'aedes'
import { GatewayError } from '../../base/errors.js'
import type { TimeSlicer } from '../../base/time-slicer.js'
import { firstFailure, reasonCodes } from '../../mqtt/reason-codes.js'
import { encodeGrants } from '../../mqtt/server-packets.js'
import { topicFilterProblem } from '../../topics/topic-syntax.js'
import type { Receiver } from './delivery.js'
import type { LiveSubscriptions } from './live-subscriptions.js'
import { isShared } from './shared-filter.js'
import type { StoredSubscription } from './storage-backend.js'
import type { PairEnd } from './stream-pair.js'
import type { ParsedPacket, ParsedSubscription } from './strict-packets.js'
import type { SubscriptionRefusal } from './subscription-limits.js'

/** Filters granted in one go; more are granted in time slices. */
const filtersAtOnce = 64

/** Retain Handling (MQTT 5 §3.8.3.1): retained messages only for a new subscription, or none. */
const [onlyNew, never] = [1, 2]

export interface SubscribeHandlerOptions {
  /** Grants a filter, or returns why not. */
  readonly grant: (client: Client, filter: string, isRestored: boolean) => SubscriptionRefusal | undefined
  readonly notGranted: (client: Client, filter: string, refusal: SubscriptionRefusal) => void
  readonly release: (client: Client, filter: string) => void
  readonly subscriptions: LiveSubscriptions<Receiver>
  /** The session's subscriptions, stored in order; nothing without a session. */
  readonly stored: {
    of(client: Client): readonly StoredSubscription[]
    add(client: Client, subscriptions: readonly StoredSubscription[]): Promise<void>
    remove(client: Client, filters: readonly string[]): Promise<void>
  }
  readonly receiverOf: (client: Client) => Receiver | undefined
  readonly endOf: (client: Client) => PairEnd | undefined
  readonly slicer: TimeSlicer
  /** Called with the filters whose retained messages the client is to get, after SUBACK. */
  readonly onSubscribed: (client: Client, filters: readonly string[], retained: readonly string[]) => void
  readonly onUnsubscribed: (client: Client, filters: readonly string[]) => void
  readonly onError: (error: unknown) => void
}

/** Handles SUBSCRIBE and UNSUBSCRIBE, of all versions of MQTT. */
export class SubscribeHandler {
  readonly #options: SubscribeHandlerOptions
  /** By client: its last packet that takes several time slices, and those behind it, until they are done. */
  readonly #slicing = new WeakMap<Client, Promise<unknown>>()

  constructor(options: SubscribeHandlerOptions) {
    this.#options = options
  }

  /** Restores the subscriptions of a client's session, before its CONNACK. */
  restore(receiver: Receiver): void {
    const { client } = receiver
    const { stored, subscriptions, grant, notGranted, onError } = this.#options
    const refused: string[] = []
    for (const subscription of stored.of(client)) {
      const { topic } = subscription
      const refusal = grant(client, topic, true)
      if (refusal === undefined) {
        subscriptions.subscribe(receiver, subscription)
        continue
      }
      // It was granted under other rules.
      notGranted(client, topic, refusal)
      refused.push(topic)
    }
    if (refused.length > 0) stored.remove(client, refused).catch(onError)
  }

  /** @throws {GatewayError} `malformed-packet` for what ends the connection */
  async subscribe(client: Client, { messageId = 0, subscriptions = [], properties }: ParsedPacket): Promise<void> {
    const receiver = this.#options.receiverOf(client)
    if (!receiver) return
    for (const one of subscriptions) checkFilter(client, one)
    const identifier = properties?.subscriptionIdentifiers?.[0]
    const granted: StoredSubscription[] = []
    const retained: string[] = []
    const codes: number[] = []
    let stored: Promise<void> | undefined
    await this.#forEach(
      client,
      subscriptions,
      one => codes.push(this.#grant(receiver, one, identifier, granted, retained)),
      () => {
        if (!client.closed && !client.clean && granted.length > 0) stored = this.#options.stored.add(client, granted)
      },
    )
    await stored
    if (client.closed) return
    this.#options.endOf(client)?.respond(suback(receiver, messageId, codes))
    if (granted.length === 0) return
    this.#options.onSubscribed(
      client,
      granted.map(({ topic }) => topic),
      retained,
    )
  }

  /** Grants one filter; returns its reason code, or before MQTT 5 its return code. */
  #grant(
    receiver: Receiver,
    { topic, qos, nl = false, rap = false, rh = 0 }: ParsedSubscription,
    identifier: number | undefined,
    granted: StoredSubscription[],
    retained: string[],
  ): number {
    const { client, isVersion5 } = receiver
    const { grant, notGranted, subscriptions } = this.#options
    const refusal = grant(client, topic, false)
    if (refusal !== undefined) {
      notGranted(client, topic, refusal)
      return isVersion5 ? (refusalCodes[refusal] ?? reasonCodes.quotaExceeded) : failure
    }
    const subscription = {
      ...{ topic, qos },
      ...(nl && { nl }),
      ...(rap && { rap }),
      ...(identifier !== undefined && { subscriptionIdentifiers: [identifier] }),
    }
    const isNew = subscriptions.subscribe(receiver, subscription)
    granted.push(subscription)
    if (!isShared(topic) && rh !== never && (rh !== onlyNew || isNew)) retained.push(topic) // [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
    return qos
  }

  async unsubscribe(client: Client, { messageId = 0, unsubscriptions = [] }: ParsedPacket): Promise<void> {
    const { subscriptions, release, endOf, onUnsubscribed } = this.#options
    const isVersion5 = client.version === 5
    const codes: number[] = []
    const remove = (filter: string): void => {
      const isInvalid = topicFilterProblem(filter) !== undefined
      const had = subscriptions.unsubscribe(client, filter)
      if (had) release(client, filter)
      codes.push(isInvalid ? reasonCodes.topicFilterInvalid : had ? 0 : reasonCodes.noSubscriptionExisted)
    }
    let stored: Promise<void> | undefined
    await this.#forEach(client, unsubscriptions, remove, () => {
      if (!client.closed && !client.clean) stored = this.#options.stored.remove(client, unsubscriptions)
    })
    await stored
    if (client.closed) return
    // [MQTT-3.10.4-4]; before MQTT 5 it has no codes.
    endOf(client)?.respond(encodeGrants(0xb0, messageId, isVersion5 ? codes : [], { isVersion5 }))
    onUnsubscribed(client, unsubscriptions)
  }

  /** Handles the filters of a packet, many in time slices, and then `done`: at once, or after the client's earlier packets. */
  async #forEach<T>(
    client: Client,
    filters: readonly T[],
    handle: (filter: T) => void,
    done: () => void,
  ): Promise<void> {
    const earlier = this.#slicing.get(client)
    if (!earlier && filters.length <= filtersAtOnce) {
      filters.forEach(handle)
      done()
      return
    }
    const { slicer } = this.#options
    const run = async (): Promise<void> => {
      for (const [index, filter] of filters.entries()) {
        if (index === filtersAtOnce || (index > filtersAtOnce && slicer.isOver)) await slicer.next('subscriptions')
        handle(filter)
      }
      done()
    }
    const current = earlier ? earlier.then(run, run) : run()
    this.#slicing.set(client, current)
    try {
      await current
    } finally {
      if (this.#slicing.get(client) === current) this.#slicing.delete(client)
    }
  }
}

/** A SUBACK, with a reason string for the first filter that is refused, if the client wants and takes one [MQTT-3.9.2-1]. */
function suback({ client, isVersion5, maximumPacketSize }: Receiver, id: number, codes: readonly number[]): Buffer {
  const refused = client._requestProblemInformation ? codes.find(code => code >= firstFailure) : undefined
  const text = refused === undefined ? undefined : refusalTexts[refused]
  const packet = encodeGrants(0x90, id, codes, { isVersion5, text })
  return packet.length > maximumPacketSize ? encodeGrants(0x90, id, codes, { isVersion5 }) : packet
}

const refusalTexts: Partial<Record<number, string>> = {
  [reasonCodes.notAuthorized]: 'A topic filter is not open to you',
  [reasonCodes.topicFilterInvalid]: 'A topic filter is not valid, or larger than this broker takes',
  [reasonCodes.quotaExceeded]: 'You have as many topic filters as you may',
}

/** A return code of SUBACK (MQTT 3.1.1 §3.9.3). */
const failure = 0x80

const refusalCodes: Partial<Record<SubscriptionRefusal, number>> = {
  rules: reasonCodes.notAuthorized,
  invalid: reasonCodes.topicFilterInvalid,
}

/** @throws {GatewayError} for a shared subscription with No Local [MQTT-3.8.3-4] */
function checkFilter(client: Client, { topic, nl }: ParsedSubscription): void {
  if (client.version !== 5 || !nl || !isShared(topic)) return
  const hint = 'a shared subscription has No Local'
  throw new GatewayError('malformed-packet', { hint, mqttReason: reasonCodes.protocolError })
}
