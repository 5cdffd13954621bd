import { networkOf } from '../access/limits.js'
import { type ErrorReason, GatewayError } from '../base/errors.js'
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
    return new HeldBytes([this.#networks, networkOf(address)], user === undefined ? undefined : [this.#users, user])
  }
}

type Account = readonly [quota: FairQuota, key: string]

/** The bytes of one body, or of the messages of one connection. To be resized to 0 in the end. */
export class HeldBytes {
  readonly #network: Account
  readonly #user: Account | undefined
  #size = 0

  constructor(network: Account, user: Account | undefined) {
    this.#network = network
    this.#user = user
  }

  /**
   * Changes the number of bytes. Fewer always fit.
   *
   * @throws {GatewayError} `bodies-too-many-from-address`, `bodies-too-many-from-user` or `bodies-too-many`; the number stays as it was
   */
  resize(size: number): void {
    const more = size - this.#size
    if (more === 0) return
    requireRoom(this.#network, more, 'bodies-too-many-from-address')
    if (this.#user) requireRoom(this.#user, more, 'bodies-too-many-from-user')
    change(this.#network, more)
    if (this.#user) change(this.#user, more)
    this.#size = size
  }
}

function change([quota, key]: Account, more: number): void {
  if (more < 0) quota.giveBack(key, -more)
  else quota.take(key, more)
}

function requireRoom([quota, key]: Account, more: number, ofOwn: ErrorReason): void {
  const exceeded = more > 0 ? quota.exceededBy(key, more) : undefined
  if (exceeded) throw new GatewayError(exceeded === 'own' ? ofOwn : 'bodies-too-many')
}
