import { GatewayError } from '../base/errors.js'
import { Exclusive } from '../base/exclusive.js'
import { type Event, parseId } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'
import type { Message } from '../mqtt/message.js'
import {
  type Decision,
  type SharedState,
  type StateCollection,
  type StateRecord,
  updateState,
} from '../storage/shared-state.js'

/** Bounds of stored requests with an `Idempotency-Key`. */
export interface IdempotencyBounds {
  /** Milliseconds from the last request with a key until the key expires. */
  readonly maxAge: number
  /** Keys of all owners; one owner has half of them at most. */
  readonly maxKeys: number
  /** Bytes of keys and responses, about; one owner has half of them at most. */
  readonly maxBytes: number
  /** Milliseconds after which the key of a gateway that has ended is free. Default: 15 s, longer than a gateway waits for one message. */
  readonly holdTime?: number
}

/** Progress of a request: the id of each published message, `null` where push does not have its topic. */
export interface Progress {
  readonly ids: (string | null)[]
  /** The next message, while its outcome is unknown; `settled` rejects if it failed. */
  inProgress: { readonly message: Message; readonly settled: Promise<void> } | undefined
  /** The event of the next message, if it is published and its receipts are not requested yet. */
  withoutReceipts: Event | undefined
  /** The journal's position after which further messages of the request may be, which a gateway has published that has ended. */
  uncertainAfter: number | undefined
  /** Whether all messages are published. */
  done: boolean
}

export function newProgress(): Progress {
  return { ids: [], inProgress: undefined, withoutReceipts: undefined, uncertainAfter: undefined, done: false }
}

/** Whether anything was published, or may have been. */
function isBegun({ ids, inProgress, withoutReceipts, uncertainAfter }: Progress): boolean {
  return ids.length > 0 || inProgress !== undefined || withoutReceipts !== undefined || uncertainAfter !== undefined
}

/** A request with a key that is being answered. */
export interface KeyedRequest {
  /** The progress of all requests with this key; to be updated. */
  readonly progress: Progress
  /**
   * Call before each message.
   *
   * @throws {GatewayError} rejects with `idempotency-busy` if another gateway has taken the key meanwhile; `journal-unavailable`
   */
  renew(): Promise<void>
  /** Call before the response, with any outcome. Never rejects. */
  end(): Promise<void>
}

/** What is stored of a request. */
interface StoredRequest extends Pick<Progress, 'ids' | 'done'> {
  readonly fingerprint: string
  /** The journal's position before the next message. */
  readonly after: number
  /** Whether the next message may have been published after that. */
  readonly isUncertain: boolean
  /** Whether a gateway answers a request with the key. */
  readonly isHeld: boolean
}

/** A request that this gateway answers, or whose next message has an unknown outcome. */
interface OpenRequest {
  readonly key: string
  readonly owner: string
  readonly fingerprint: string
  readonly progress: Progress
  readonly writes: Exclusive
  after: number
  busy: boolean
  version: string
  renewedAt: number
  timer: NodeJS.Timeout | undefined
  released: Promise<void> | undefined
}

const defaultHoldTime = 15_000

/** Progress of requests by `Idempotency-Key`: a repetition, also at another gateway, does what is left, and nothing twice. */
export class IdempotencyKeys {
  readonly #journal: Pick<Journal, 'head'>
  readonly #holdTime: number
  readonly #entries: StateCollection
  readonly #open = new Map<string, OpenRequest>()

  constructor(state: SharedState, journal: Pick<Journal, 'head'>, bounds: IdempotencyBounds) {
    const { maxAge, maxKeys, maxBytes, holdTime = defaultHoldTime } = bounds
    this.#journal = journal
    this.#holdTime = holdTime
    this.#entries = state.collection('idempotency', {
      ...{ maxAge, maxEntries: maxKeys, maxBytes, whenFull: 'evict' },
      ...{ maxEntriesPerOwner: maxKeys / 2, maxBytesPerOwner: maxBytes / 2 },
    })
  }

  /** Requests that are not over. */
  get open(): number {
    return this.#open.size
  }

  /**
   * Begins a request.
   *
   * @param owner the account of the caller
   * @param name the key
   * @param fingerprint of the request
   * @throws {GatewayError} rejects with `idempotency-mismatch`, `idempotency-busy`, `journal-unavailable`
   */
  async begin(owner: string, name: string, fingerprint: string): Promise<KeyedRequest> {
    const key = `${owner}\n${name}`
    await this.#open.get(key)?.released
    const open = this.#open.get(key) ?? (await this.#take(key, owner, fingerprint))
    if (open.fingerprint !== fingerprint) throw new GatewayError('idempotency-mismatch')
    if (open.busy) throw new GatewayError('idempotency-busy')
    open.busy = true
    return { progress: open.progress, renew: () => this.#renew(open), end: () => this.#end(open) }
  }

  async #take(key: string, owner: string, fingerprint: string): Promise<OpenRequest> {
    const { head } = this.#journal
    const decide = ({ value, age }: StateRecord): Decision<StoredRequest> => {
      const stored = value === undefined ? undefined : (JSON.parse(value) as StoredRequest)
      if (stored && stored.fingerprint !== fingerprint) throw new GatewayError('idempotency-mismatch')
      if (stored?.isHeld && age < this.#holdTime) throw new GatewayError('idempotency-busy')
      const isUncertain = stored !== undefined && (stored.isHeld || stored.isUncertain)
      const result = {
        ...{ fingerprint, ids: stored?.ids ?? [], done: stored?.done ?? false },
        ...{ isUncertain, after: isUncertain ? stored.after : head },
        isHeld: stored?.done !== true,
      }
      return { change: { value: JSON.stringify(result), owner }, result }
    }
    const { result, version } = await updateState(this.#entries, key, decide).catch(cause => {
      throw cause instanceof GatewayError ? cause : new GatewayError('journal-unavailable', { cause })
    })
    const { ids, done, after, isUncertain } = result
    const open: OpenRequest = {
      ...{ key, owner, fingerprint, after, version },
      progress: { ...newProgress(), ids: [...ids], done, uncertainAfter: isUncertain ? after : undefined },
      writes: new Exclusive(),
      ...{ busy: false, renewedAt: performance.now(), timer: undefined, released: undefined },
    }
    if (!done) this.#open.set(key, open)
    return open
  }

  async #renew(open: OpenRequest): Promise<void> {
    if (performance.now() - open.renewedAt < this.#holdTime / 3) return
    const isStored = await this.#store(open, true).catch(cause => {
      throw new GatewayError('journal-unavailable', { cause })
    })
    if (!isStored) throw new GatewayError('idempotency-busy')
  }

  async #end(open: OpenRequest): Promise<void> {
    if (!open.busy) return
    open.busy = false
    // Replayed.
    if (this.#open.get(open.key) !== open) return
    const { inProgress } = open.progress
    if (!inProgress) return this.#release(open)
    open.timer ??= setInterval(() => void this.#renew(open).catch(() => {}), this.#holdTime / 3).unref()
    const settled = (): void => {
      if (!open.busy) void this.#release(open)
    }
    inProgress.settled.then(settled, settled)
  }

  #release(open: OpenRequest): Promise<void> {
    clearInterval(open.timer)
    open.released ??= this.#store(open, false)
      // If the state is away, the key is free after `holdTime`.
      .catch(() => {})
      .then(() => {
        this.#open.delete(open.key)
      })
    return open.released
  }

  /** Stores the progress. @returns whether no other gateway has taken the key meanwhile */
  #store(open: OpenRequest, isHeld: boolean): Promise<boolean> {
    return open.writes.run(async () => {
      const { key, owner, fingerprint, progress } = open
      const { ids, done, withoutReceipts, uncertainAfter } = progress
      const newest = parseId(ids.findLast(id => id !== null) ?? '')?.sequence ?? 0
      open.after = Math.max(open.after, newest)
      open.after = withoutReceipts ? withoutReceipts.sequence - 1 : (uncertainAfter ?? open.after)
      const stored: StoredRequest = {
        ...{ fingerprint, ids, done, after: open.after, isHeld },
        isUncertain: withoutReceipts !== undefined || uncertainAfter !== undefined,
      }
      const isNeeded = isHeld || isBegun(progress)
      const version = await this.#entries.set(
        key,
        open.version,
        isNeeded ? { value: JSON.stringify(stored), owner } : undefined,
      )
      if (version === undefined) return false
      open.version = version
      open.renewedAt = performance.now()
      return true
    })
  }
}
