/*
 * Types of the promise interface of Aedes' persistences; their own declarations describe the older callback interface.
 */

declare module 'aedes-persistence/asyncPersistence.js' {
  import type { Readable } from 'node:stream'
  import type { Aedes, AedesPublishPacket, PublishPacket, Subscription } from 'aedes'

  interface Session {
    readonly id: string
  }

  interface QueueSubscription {
    readonly clientId: string
    readonly topic: string
    readonly qos: 0 | 1 | 2
    /** Whether RETAIN is to come as it was published. */
    readonly rap?: boolean
  }

  class Persistence {
    setup(broker: Aedes): Promise<void>
    storeRetained(packet: AedesPublishPacket): Promise<void>
    createRetainedStream(filter: string): Readable
    addSubscriptions(client: Session, subscriptions: readonly Subscription[]): Promise<void>
    removeSubscriptions(client: Session, filters: readonly string[]): Promise<void>
    cleanSubscriptions(client: Session): Promise<void>
    subscriptionsByClient(client: Session): Promise<Subscription[]>
    outgoingEnqueue(subscription: { readonly clientId: string }, packet: AedesPublishPacket): Promise<void>
    outgoingUpdate(client: Session, packet: AedesPublishPacket): Promise<void>
    outgoingClearMessageId(client: Session, packet: AedesPublishPacket): Promise<AedesPublishPacket | undefined>
    outgoingStream(client: Session): Readable
    incomingStorePacket(client: Session, packet: PublishPacket): Promise<void>
    incomingGetPacket(client: Session, packet: PublishPacket): Promise<AedesPublishPacket>
    incomingDelPacket(client: Session, packet: PublishPacket): Promise<void>
    cleanIncoming(client: Session): Promise<void>
    putWill(client: Session, will: PublishPacket): Promise<void>
    delWill(client: Session): Promise<PublishPacket | undefined>
    streamWill(brokers: { readonly [id: string]: number }): Readable
  }

  namespace Persistence {
    export type { QueueSubscription, Session }
  }
  export = Persistence
}

declare module 'aedes-persistence-level/asyncPersistence.js' {
  import Persistence from 'aedes-persistence/asyncPersistence.js'

  class LevelPersistence extends Persistence {
    /** @param database a `Level`, or what it is asked of one: `createRetainedStream` nothing but the values in a range */
    constructor(database: object)
  }
  export = LevelPersistence
}

declare module 'msgpack-lite' {
  export function encode(value: unknown): Buffer
  /** Of a form that the caller knows, as it has encoded it. */
  export function decode<T>(data: Buffer): T
}
