import type { Presence, PresenceHandle } from './presence.js'

/** A connection of an MQTT client: the same object for as long as it lasts. */
export interface MqttSubscriber {
  readonly clientId: string
  readonly user: string | undefined
  readonly address?: string
}

/** Client ids may have 64 KiB; as the name of a device, they have what other names may have. */
const longestDevice = 255

/**
 * Has the clients of a broker present, as the broker tells of them. The device is the user, where there is one, and so all
 * clients of a user are one listener; else it is the client id.
 */
export class MqttSubscribers {
  readonly #attendances = new Map<MqttSubscriber, PresenceHandle>()
  #presence: Pick<Presence, 'enter'> | undefined

  /** Call before anybody connects: a broker is there before its clients can be present. */
  attach(presence: Pick<Presence, 'enter'>): void {
    this.#presence = presence
  }

  /** It listens to these too; it may have done so before. */
  subscribed(client: MqttSubscriber, filters: readonly string[]): void {
    const attendance = this.#attendances.get(client)
    if (attendance) {
      attendance.seen()
      attendance.add(filters)
      return
    }
    const { user, address, clientId } = client
    const device = user ?? clientId.slice(0, longestDevice)
    const entered = this.#presence?.enter({
      ...{ device, user, transport: 'mqtt', topics: filters },
      ...(address !== undefined && { address }),
    })
    if (entered) this.#attendances.set(client, entered)
  }

  /** It listens to these no longer; it may not have done so. */
  unsubscribed(client: MqttSubscriber, filters: readonly string[]): void {
    const attendance = this.#attendances.get(client)
    attendance?.seen()
    attendance?.remove(filters)
  }

  left(client: MqttSubscriber): void {
    this.#attendances.get(client)?.leave()
    this.#attendances.delete(client)
  }
}
