import { GatewayError } from '../../base/errors.js'
import type { RrrConfig } from '../../config/compat.js'
import type { Journal } from '../../journal/journal.js'
import { BatchedScan } from './batched-scan.js'
import { Handle, type HandleContext } from './handle.js'
import { RecentPosition } from './recent-position.js'

export interface HandlesOptions {
  readonly journal: Journal
  readonly config: Pick<RrrConfig, 'maxHandles' | 'maxQueued' | 'maxAge'>
  /** Milliseconds since 1970; the computer's clock when left out. */
  readonly now?: (() => number) | undefined
}

/**
 * The handles that are in use, and those that were a short while ago. One that nobody has asked for since before the oldest
 * message that it could get is forgotten: it would begin at the same place.
 */
export class Handles {
  readonly #options: HandlesOptions
  readonly #house: HandleContext
  /** Those that were used last are the last. */
  readonly #all = new Map<string, Handle>()
  /** The same, by the user or address that asked last. */
  readonly #byAccount = new Map<string, Set<Handle>>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: HandlesOptions) {
    const { journal, config, now = Date.now } = options
    this.#options = options
    const recent = new RecentPosition({ journal, maxAge: config.maxAge, now })
    this.#house = { journal, config, recent, near: new BatchedScan(journal), far: new BatchedScan(journal), now }
  }

  get size(): number {
    return this.#all.size
  }

  /**
   * The handle of a name, for one request; give it back with `release`. Where there are as many as there may be, the account with the
   * most handles loses its oldest one: nobody who asks for ever new handles has those of others forgotten.
   *
   * @param account the user or address that asks
   * @throws {Ending} `too-many-connections` where as many as there may be have a request that is open
   */
  take(name: string, account = ''): Handle {
    const handle = this.#all.get(name) ?? this.#make(name)
    handle.readers++
    this.#drop(handle)
    handle.account = account
    this.#add(handle)
    return handle
  }

  release(handle: Handle): void {
    handle.readers--
    handle.usedAt = this.#house.now()
    // It was forgotten, as all are at the end.
    if (this.#all.get(handle.name) !== handle) return
    this.#drop(handle)
    this.#add(handle)
    this.#timer ??= this.#wait(this.#options.config.maxAge)
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#all.clear()
    this.#byAccount.clear()
  }

  #make(name: string): Handle {
    if (this.#all.size >= this.#options.config.maxHandles) this.#forgetOldest()
    return new Handle(this.#house, name)
  }

  #add(handle: Handle): void {
    this.#all.set(handle.name, handle)
    const own = this.#byAccount.get(handle.account) ?? new Set()
    this.#byAccount.set(handle.account, own.add(handle))
  }

  #drop(handle: Handle): void {
    this.#all.delete(handle.name)
    const own = this.#byAccount.get(handle.account)
    own?.delete(handle)
    if (own?.size === 0) this.#byAccount.delete(handle.account)
  }

  #forgetOldest(): void {
    let largest: ReadonlySet<Handle> = new Set()
    for (const own of this.#byAccount.values()) if (own.size > largest.size) largest = own
    const oldest = firstUnused(largest) ?? firstUnused(this.#all.values())
    if (oldest === undefined) throw new GatewayError('too-many-connections')
    this.#drop(oldest)
  }

  #wait(time: number): NodeJS.Timeout {
    return setTimeout(() => this.#forgetOld(), time).unref()
  }

  #forgetOld(): void {
    this.#timer = undefined
    const oldest = this.#house.now() - this.#options.config.maxAge
    for (const handle of this.#all.values()) {
      const { readers, usedAt } = handle
      if (readers > 0) continue
      if (usedAt > oldest) {
        this.#timer = this.#wait(usedAt - oldest)
        return
      }
      this.#drop(handle)
    }
  }
}

function firstUnused(handles: Iterable<Handle>): Handle | undefined {
  for (const handle of handles) if (handle.readers === 0) return handle
  return undefined
}
