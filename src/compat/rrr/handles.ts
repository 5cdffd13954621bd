import { GatewayError } from '../../base/errors.js'
import type { RrrConfig } from '../../config/compat.js'
import type { Journal } from '../../journal/journal.js'
import type { SharedState } from '../../storage/shared-state.js'
import { BatchedScan } from './batched-scan.js'
import { Handle, type HandleContext } from './handle.js'
import { recentPosition } from './recent-position.js'

/** Bytes of a stored handle at most: its name, its account and its position. */
const maxStoredBytes = 1024

export interface HandlesOptions {
  readonly journal: Journal
  /** Keeps the positions. */
  readonly state: SharedState
  readonly config: Pick<RrrConfig, 'maxHandles' | 'maxQueued' | 'maxAge'>
  /** Milliseconds since 1970; the computer's clock when left out. */
  readonly now?: (() => number) | undefined
}

/**
 * The handles in use, and those used recently. A handle without a request for `maxAge` is forgotten: a new one
 * would begin at the same position.
 */
export class Handles {
  readonly #options: HandlesOptions
  readonly #context: HandleContext
  /** In order of their last use. */
  readonly #all = new Map<string, Handle>()
  /** The same, by the user or address of their last request. */
  readonly #byAccount = new Map<string, Set<Handle>>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: HandlesOptions) {
    const { journal, state, config, now = Date.now } = options
    const { maxAge, maxHandles: maxEntries } = config
    const maxBytes = maxEntries * maxStoredBytes
    const handles = state.collection('handles', {
      ...{
        maxAge,
        maxEntries,
        maxBytes,
        maxEntriesPerOwner: maxEntries,
        maxBytesPerOwner: maxBytes,
        whenFull: 'evict',
      },
    })
    this.#options = options
    const recent = recentPosition(journal, config.maxAge, now)
    const [short, long] = [new BatchedScan(journal), new BatchedScan(journal)]
    this.#context = { journal, config, recent, short, long, handles, now }
  }

  get size(): number {
    return this.#all.size
  }

  /**
   * The handle of a name, for one request; give it back with `release`. At `maxHandles`, the account with the most handles
   * loses its oldest one, so that a client that asks for ever new handles evicts only its own.
   *
   * @param account the user or address of the request
   * @throws {GatewayError} `too-many-connections` if all handles have an open request
   */
  take(name: string, account = ''): Handle {
    const handle = this.#all.get(name) ?? this.#make(name)
    handle.openRequests++
    this.#remove(handle)
    handle.account = account
    this.#add(handle)
    return handle
  }

  release(handle: Handle): void {
    handle.openRequests--
    handle.usedAt = this.#context.now()
    // It was forgotten.
    if (this.#all.get(handle.name) !== handle) return
    this.#remove(handle)
    this.#add(handle)
    this.#timer ??= this.#startTimer(this.#options.config.maxAge)
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#all.clear()
    this.#byAccount.clear()
  }

  #make(name: string): Handle {
    if (this.#all.size >= this.#options.config.maxHandles) this.#forgetOldest()
    return new Handle(this.#context, name)
  }

  #add(handle: Handle): void {
    this.#all.set(handle.name, handle)
    const handles = this.#byAccount.get(handle.account) ?? new Set()
    this.#byAccount.set(handle.account, handles.add(handle))
  }

  #remove(handle: Handle): void {
    this.#all.delete(handle.name)
    const handles = this.#byAccount.get(handle.account)
    handles?.delete(handle)
    if (handles?.size === 0) this.#byAccount.delete(handle.account)
  }

  #forgetOldest(): void {
    let largest: ReadonlySet<Handle> = new Set()
    for (const handles of this.#byAccount.values()) if (handles.size > largest.size) largest = handles
    const oldest = firstUnused(largest) ?? firstUnused(this.#all.values())
    if (oldest === undefined) throw new GatewayError('too-many-connections')
    this.#remove(oldest)
  }

  #startTimer(time: number): NodeJS.Timeout {
    return setTimeout(() => this.#forgetOld(), time).unref()
  }

  #forgetOld(): void {
    this.#timer = undefined
    const oldest = this.#context.now() - this.#options.config.maxAge
    for (const handle of this.#all.values()) {
      const { openRequests, usedAt } = handle
      if (openRequests > 0) continue
      if (usedAt > oldest) {
        this.#timer = this.#startTimer(usedAt - oldest)
        return
      }
      this.#remove(handle)
    }
  }
}

function firstUnused(handles: Iterable<Handle>): Handle | undefined {
  for (const handle of handles) if (handle.openRequests === 0) return handle
  return undefined
}
