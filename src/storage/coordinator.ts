import { Exclusive } from '../base/exclusive.js'
import type { Logger } from '../base/log.js'
import { holdLease, Lease, releaseLease } from './lease.js'
import type { SharedRedis } from './shared-redis.js'

/** Time in which a gateway that begins to read the broker gets what was queued, in milliseconds. */
const settleTime = 2000

export interface CoordinatorOptions {
  readonly shared: SharedRedis
  /** The key of the lease of the gateway that reads the broker. */
  readonly readerLease: string
  /** Whether this gateway can publish at the broker. */
  readonly canPublish: () => boolean
}

/**
 * Elects the coordinator: the one of several gateways that has the deadlines of receipts and sends mails. It need not be the one that reads the broker,
 * because receipts and mails go on without a broker.
 */
export class Coordinator {
  /** The key of its lease. */
  readonly key: string
  readonly #lease: Lease
  readonly #listeners = new Set<(token: string | undefined) => void | Promise<void>>()
  #token: string | undefined
  /** The token of the gateway that reads the broker; `null` for none, `undefined` if unknown. */
  #reader: string | null | undefined
  /** Since when it has been the same, in monotonic milliseconds. */
  #readerSince = 0

  constructor({ shared, readerLease, canPublish }: CoordinatorOptions) {
    const { redis, config } = shared
    const key = `${config.prefix}coordinator`
    this.key = key
    // While another gateway reaches the broker, it can do more.
    const isUseful = (): boolean => canPublish() || !this.isBrokerRead
    this.#lease = new Lease({
      hold: async (token, duration, how) => {
        this.#setReader(await redis.get(readerLease).catch(() => undefined))
        return (how === 'renew' || isUseful()) && holdLease(redis, key, token, duration, how)
      },
      release: token => releaseLease(redis, key, token),
      isCandidate: () => true,
      isWorking: isUseful,
      onHeld: token => this.#set(token),
      onLost: () => this.#set(undefined),
    })
  }

  /** Of this gateway's lease, which scripts compare with Redis; `undefined` while another gateway is the coordinator. */
  get token(): string | undefined {
    return this.#lease.isHeld ? this.#token : undefined
  }

  /** Whether a gateway reads the broker, as of the last renewal. */
  get isBrokerRead(): boolean {
    return typeof this.#reader === 'string'
  }

  /** Whether one gateway has read the broker for so long that it has all that was queued before. */
  get isBrokerSettled(): boolean {
    return this.isBrokerRead && performance.now() >= this.#readerSince + settleTime
  }

  /**
   * Calls `listener` with each new token, and with `undefined` when it ends; the lease is given back when the promises of all listeners have resolved.
   *
   * @returns a function that stops this
   */
  watch(listener: (token: string | undefined) => void | Promise<void>): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): Promise<void> {
    return this.#lease.close()
  }

  #setReader(token: string | null | undefined): void {
    if (token === this.#reader) return
    this.#reader = token
    this.#readerSince = performance.now()
  }

  async #set(token: string | undefined): Promise<void> {
    this.#token = token
    await Promise.all([...this.#listeners].map(listener => listener(token)))
  }
}

/** Time until a part is opened again after a failure, in milliseconds. */
const retryDelay = 1000

/** A part of the gateway that is open while the gateway is the coordinator. */
export class CoordinatedPart<T extends { close(): Promise<void> }> {
  readonly #coordinator: Coordinator
  readonly #open: (token: string) => Promise<T>
  readonly #log: Logger
  readonly #unwatch: () => void
  readonly #tasks = new Exclusive()
  /** Of the lease, also while its renewal is late. */
  #token: string | undefined
  #part: { readonly token: string; readonly value: T } | undefined
  #timer: NodeJS.Timeout | undefined
  #isStale = false
  #isClosed = false

  constructor(coordinator: Coordinator, open: (token: string) => Promise<T>, log: Logger) {
    this.#coordinator = coordinator
    this.#open = open
    this.#log = log
    this.#token = coordinator.token
    this.#unwatch = coordinator.watch(token => {
      this.#token = token
      const updated = this.#update()
      // It is closed before the lease is given back.
      return token === undefined ? updated : undefined
    })
    void this.#update()
  }

  /** `undefined` while another gateway is the coordinator, or the part is being opened. */
  get current(): T | undefined {
    const { token } = this.#coordinator
    return this.#part !== undefined && this.#part.token === token ? this.#part.value : undefined
  }

  /** Closes it, and opens it again. */
  reopen(): void {
    this.#isStale = true
    void this.#update()
  }

  /** Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#unwatch()
    await this.#update()
  }

  /** Opens and closes it until it is as it should be. */
  #update(): Promise<void> {
    return this.#tasks.run(async () => {
      clearTimeout(this.#timer)
      const token = this.#isClosed ? undefined : this.#token
      if (token === this.#part?.token && !this.#isStale) return
      this.#isStale = false
      const former = this.#part
      this.#part = undefined
      try {
        await former?.value.close()
        if (token !== undefined) this.#part = { token, value: await this.#open(token) }
      } catch (error) {
        this.#log.warn({ err: error }, 'failed to take over from another gateway and will retry')
        this.#timer = setTimeout(() => void this.#update(), retryDelay).unref()
      }
    })
  }
}
