import { GatewayError } from '../base/errors.js'
import type { Event } from '../journal/event.js'
import type { Message } from '../mqtt/message.js'

/** Bounds of stored requests with an `Idempotency-Key`. */
export interface IdempotencyBounds {
  /** Milliseconds from the last request with a key until the key expires. */
  readonly maxAge: number
  /** Keys of all owners; one owner has half of them at most. */
  readonly maxKeys: number
  /** Bytes of keys and responses, about; one owner has half of them at most. */
  readonly maxBytes: number
}

/** Progress of a request: the id of each published message, `null` where push does not have its topic. */
export interface Progress {
  readonly ids: (string | null)[]
  /** The next message, while its outcome is unknown; `settled` rejects if it failed. */
  inProgress: { readonly message: Message; readonly settled: Promise<void> } | undefined
  /** The event of the next message, if it is published and its receipts are not requested yet. */
  withoutReceipts: Event | undefined
  /** Whether all messages are published. */
  done: boolean
}

export function newProgress(): Progress {
  return { ids: [], inProgress: undefined, withoutReceipts: undefined, done: false }
}

/** Whether anything was published, or may have been. */
function isBegun({ ids, inProgress, withoutReceipts }: Progress): boolean {
  return ids.length > 0 || inProgress !== undefined || withoutReceipts !== undefined
}

/** A request with a key that is being answered. */
export interface KeyedRequest {
  /** The progress of all requests with this key; to be updated. */
  readonly progress: Progress
  /** Call after the response, with any outcome. */
  end(): void
}

interface Entry {
  readonly owner: string
  readonly fingerprint: string
  readonly progress: Progress
  busy: boolean
  bytes: number
  /** When its last request was answered. */
  time: number
}

interface Owner {
  readonly keys: Set<string>
  bytes: number
}

/** Bytes of an entry without its strings, and of an id. */
const [entryBytes, idBytes] = [400, 48]

/**
 * Progress of requests by `Idempotency-Key`: a repetition does what is left, and nothing twice. Beyond the bounds, the oldest keys of the owner with
 * the most are dropped. It is in memory only.
 */
export class IdempotencyKeys {
  readonly #bounds: IdempotencyBounds
  readonly #now: () => number
  /** The longest unused first, with those in use between them. */
  readonly #entries = new Map<string, Entry>()
  /** Keys by owner, in the same order. */
  readonly #owners = new Map<string, Owner>()
  #bytes = 0

  /** @param now monotonic milliseconds */
  constructor(bounds: IdempotencyBounds, now: () => number = () => performance.now()) {
    this.#bounds = bounds
    this.#now = now
  }

  get size(): number {
    return this.#entries.size
  }

  /**
   * Begins a request.
   *
   * @param owner the account of the caller
   * @param name the key
   * @param fingerprint of the request
   * @throws {GatewayError} `idempotency-mismatch`, `idempotency-busy`
   */
  begin(owner: string, name: string, fingerprint: string): KeyedRequest {
    const key = `${owner}\n${name}`
    this.#forget()
    const kept = this.#entries.get(key)
    // A message under way may have failed meanwhile.
    const known = kept && (kept.busy || isBegun(kept.progress)) ? kept : undefined
    if (kept && !known) this.#drop(key, kept)
    if (known && known.fingerprint !== fingerprint) throw new GatewayError('idempotency-mismatch')
    if (known?.busy) throw new GatewayError('idempotency-busy')
    const entry = known ?? { owner, fingerprint, progress: newProgress(), busy: true, bytes: 0, time: 0 }
    entry.busy = true
    this.#entries.set(key, entry)
    return { progress: entry.progress, end: () => this.#end(key, entry) }
  }

  #end(key: string, entry: Entry): void {
    if (!entry.busy) return
    entry.busy = false
    this.#drop(key, entry)
    // A request without progress need not be stored.
    if (!isBegun(entry.progress)) return
    const { ids, inProgress, withoutReceipts } = entry.progress
    const payload = (withoutReceipts ?? inProgress?.message)?.payload.length ?? 0
    entry.bytes = entryBytes + key.length + entry.fingerprint.length + ids.length * idBytes + payload
    entry.time = this.#now()
    this.#keep(key, entry)
    this.#forget()
  }

  #keep(key: string, entry: Entry): void {
    const { owner, bytes } = entry
    const own = this.#owners.get(owner) ?? { keys: new Set(), bytes: 0 }
    this.#owners.set(owner, own)
    own.keys.add(key)
    own.bytes += bytes
    this.#bytes += bytes
    this.#entries.set(key, entry)
    const { maxKeys, maxBytes } = this.#bounds
    for (const oldest of own.keys) {
      if (own.keys.size <= maxKeys / 2 && own.bytes <= maxBytes / 2) break
      const found = this.#entries.get(oldest)
      if (found && !found.busy) this.#drop(oldest, found)
    }
  }

  #forget(): void {
    const { maxAge, maxKeys, maxBytes } = this.#bounds
    const oldest = this.#now() - maxAge
    for (const [key, entry] of this.#entries) {
      if (entry.busy) continue
      if (entry.time >= oldest) break
      this.#drop(key, entry)
    }
    while (this.#entries.size > maxKeys && this.#dropOldestOf(({ keys }) => keys.size)) {}
    while (this.#bytes > maxBytes && this.#dropOldestOf(({ bytes }) => bytes)) {}
  }

  /** Drops the oldest key of the owner with the most of `sizeOf`. @returns whether there was one */
  #dropOldestOf(sizeOf: (owner: Owner) => number): boolean {
    let [most, size]: [Owner | undefined, number] = [undefined, 0]
    for (const owner of this.#owners.values()) {
      if (sizeOf(owner) > size) [most, size] = [owner, sizeOf(owner)]
    }
    for (const key of most?.keys ?? []) {
      const entry = this.#entries.get(key)
      if (!entry || entry.busy) continue
      this.#drop(key, entry)
      return true
    }
    return false
  }

  #drop(key: string, entry: Entry): void {
    this.#entries.delete(key)
    this.#bytes -= entry.bytes
    const own = this.#owners.get(entry.owner)
    if (own?.keys.delete(key)) own.bytes -= entry.bytes
    if (own?.keys.size === 0) this.#owners.delete(entry.owner)
    entry.bytes = 0
  }
}
