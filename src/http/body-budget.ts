import { networkOf } from '../access/limits.js'
import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'

/** The sender of a body or a message. */
export interface BodySender {
  /** Address of the client, as `ClientResolver` tells it. */
  readonly address: string
  /** Left out for somebody without a name. */
  readonly user?: string | undefined
}

/**
 * Bytes of bodies and WebSocket messages that are not done with: one budget for the whole gateway, because a thousand streams of one
 * HTTP/2 connection may each have begun one. It is shared by the networks of the senders (IPv6: /64), and by users where they are
 * known: one of either holds half of it at most, and a sender from elsewhere always finds room.
 */
export class BodyBudget {
  readonly #networks: FairQuota
  readonly #users: FairQuota

  /** @param most in bytes, of all together */
  constructor(most: number) {
    this.#networks = new FairQuota(most)
    this.#users = new FairQuota(most)
  }

  /** Bytes that are held. */
  get used(): number {
    return this.#networks.total
  }

  /** Opens the account of one body, which holds nothing yet. */
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

/** Bytes of a `BodyBudget` that one body, or the messages of one connection, hold. Must be resized to 0 in the end. */
export class HeldBytes {
  readonly #account: Account
  #size = 0

  constructor(account: Account) {
    this.#account = account
  }

  /**
   * Holds `size` bytes from now on. Fewer always fit.
   *
   * @throws {GatewayError} `bodies-too-many-from-address`, `bodies-too-many-from-user` or `bodies-too-many`; then it holds as many as before
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
