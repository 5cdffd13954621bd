import { networkOf } from '../access/limits.js'
import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'

export interface BodySender {
  /** Address of the client, from `ClientResolver`. */
  readonly address: string
  /** Left out without a user. */
  readonly user?: string | undefined
}

/**
 * Budget of the bytes of unfinished bodies and WebSocket messages of the whole gateway: a thousand streams of one HTTP/2 connection may each have
 * begun one. Networks of the senders (IPv6: /64), and users, share it: each has half of it at most, and a sender from elsewhere always finds room.
 */
export class BodyBudget {
  readonly #networks: FairQuota
  readonly #users: FairQuota

  /** @param most bytes of all together */
  constructor(most: number) {
    this.#networks = new FairQuota(most)
    this.#users = new FairQuota(most)
  }

  /** Bytes that are held. */
  get used(): number {
    return this.#networks.total
  }

  /** Opens the account of one body, with 0 bytes. */
  open({ address, user }: BodySender): HeldBytes {
    return new HeldBytes({ networks: this.#networks, users: this.#users, network: networkOf(address), user })
  }
}

interface Account {
  readonly networks: FairQuota
  readonly users: FairQuota
  readonly network: string
  readonly user: string | undefined
}

/** The bytes of one body, or of the messages of one connection. To be resized to 0 in the end. */
export class HeldBytes {
  readonly #account: Account
  #size = 0

  constructor(account: Account) {
    this.#account = account
  }

  /**
   * Changes the number of bytes. Fewer always fit.
   *
   * @throws {GatewayError} `bodies-too-many-from-address`, `bodies-too-many-from-user` or `bodies-too-many`; the number stays as it was
   */
  resize(size: number): void {
    const more = size - this.#size
    if (more === 0) return
    const { networks, users, network, user } = this.#account
    if (more < 0) {
      networks.giveBack(network, -more)
      if (user !== undefined) users.giveBack(user, -more)
    } else {
      this.#requireRoom(more)
      networks.take(network, more)
      if (user !== undefined) users.take(user, more)
    }
    this.#size = size
  }

  #requireRoom(more: number): void {
    const { networks, users, network, user } = this.#account
    const ofNetwork = networks.exceededBy(network, more)
    if (ofNetwork) throw new GatewayError(ofNetwork === 'own' ? 'bodies-too-many-from-address' : 'bodies-too-many')
    const ofUser = user === undefined ? undefined : users.exceededBy(user, more)
    if (ofUser) throw new GatewayError(ofUser === 'own' ? 'bodies-too-many-from-user' : 'bodies-too-many')
  }
}
