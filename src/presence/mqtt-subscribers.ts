import type { Presence, PresenceHandle } from './presence.js'

/** A connection of an MQTT client: the same object while it is open. */
export interface MqttSubscriber {
  readonly clientId: string
  readonly user: string | undefined
  readonly address?: string
}

/** Characters of a device name; client ids may have 64 KiB. */
const maxDeviceLength = 255

/** The device of an MQTT client: its user, else its client id. */
export function deviceOfClient({ user, clientId }: Pick<MqttSubscriber, 'user' | 'clientId'>): string {
  return user ?? clientId.slice(0, maxDeviceLength)
}

/**
 * Presence of a broker's MQTT clients. The device is the user, so that all clients of a user are one listener; without a user it is the client id.
 */
export class MqttSubscribers {
  readonly #attendances = new Map<MqttSubscriber, PresenceHandle>()
  #presence: Pick<Presence, 'enter'> | undefined

  /** To be called before the first client connects: the broker is made before presence. */
  attach(presence: Pick<Presence, 'enter'>): void {
    this.#presence = presence
  }

  /** Adds filters; some may be there already. */
  subscribed(client: MqttSubscriber, filters: readonly string[]): void {
    const attendance = this.#attendances.get(client)
    if (attendance) {
      attendance.seen()
      attendance.add(filters)
      return
    }
    const { user, address } = client
    const device = deviceOfClient(client)
    const entered = this.#presence?.enter({
      ...{ device, user, transport: 'mqtt', topics: filters },
      ...(address !== undefined && { address }),
    })
    if (entered) this.#attendances.set(client, entered)
  }

  /** Removes filters; some may not be there. */
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
