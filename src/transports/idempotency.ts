import { GatewayError } from '../base/errors.js'
import type { Event } from '../journal/event.js'
import type { Message } from '../mqtt/message.js'

/** Bounds of what is remembered of requests with an `Idempotency-Key`. */
export interface IdempotencyBounds {
  /** How long a key is remembered, from its last request on; in milliseconds. */
  readonly maxAge: number
  /** Of all; those of one owner are half as many. */
  readonly maxKeys: number
  /** Of keys and answers, about; of one owner half of it. */
  readonly maxBytes: number
}

/** What has been done of a request: the id of each message, `null` where the journal does not have its topic. */
export interface Progress {
  readonly ids: (string | null)[]
  /** The message after those, while nobody knows what becomes of it; `settled` rejects where that is nothing. */
  underWay: { readonly message: Message; readonly settled: Promise<void> } | undefined
  /** The event of the message after those, where it is published and its receipts have yet to be asked for. */
  unasked: Event | undefined
  /** Whether that is all of it. */
  done: boolean
}

/** Of a request of which nothing has been done. */
export function newProgress(): Progress {
  return { ids: [], underWay: undefined, unasked: undefined, done: false }
}

/** Whether anything was done, or may have been. */
function isBegun({ ids, underWay, unasked }: Progress): boolean {
  return ids.length > 0 || underWay !== undefined || unasked !== undefined
}

/** A request with a key, while it is being answered. */
export interface KeyedRequest {
  /** What earlier requests with this key have done. What this one does is added to it. */
  readonly progress: Progress
  /** It is answered. To be called whatever became of it. */
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

/** What is remembered of one owner. */
interface Owner {
  readonly keys: Set<string>
  bytes: number
}

/** What an entry takes beside its texts, and an id. */
const [entryBytes, idBytes] = [400, 48]

/**
 * What was done for requests with an `Idempotency-Key`, so that the same request again does what is left of it, and
 * nothing twice. Beyond its bounds, the oldest of whoever has most is forgotten. It ends with the process.
 */
export class IdempotencyKeys {
  readonly #bounds: IdempotencyBounds
  readonly #now: () => number
  /** Those whose last request was answered longest ago first; with those that are being answered in between. */
  readonly #entries = new Map<string, Entry>()
  /** What is remembered of each owner, in the same order. */
  readonly #owners = new Map<string, Owner>()
  #bytes = 0

  /** @param now milliseconds, from any start, never going back */
  constructor(bounds: IdempotencyBounds, now: () => number = () => performance.now()) {
    this.#bounds = bounds
    this.#now = now
  }

  /** How many keys are remembered. */
  get size(): number {
    return this.#entries.size
  }

  /**
   * Begins to answer a request.
   *
   * @param owner whoever asks
   * @param name of the request; others may have the same
   * @param fingerprint the same for the same request alone
   * @throws {GatewayError} `idempotency-mismatch`, `idempotency-busy`
   */
  begin(owner: string, name: string, fingerprint: string): KeyedRequest {
    const key = `${owner}\n${name}`
    this.#forget()
    const kept = this.#entries.get(key)
    // What was under way may have come to nothing.
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
    // Of what did nothing, nothing need be known.
    if (!isBegun(entry.progress)) return
    const { ids, underWay, unasked } = entry.progress
    const payload = (unasked ?? underWay?.message)?.payload.length ?? 0
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

  /** @returns whether there was one to drop, of the owner with most of what `sizeOf` tells */
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
