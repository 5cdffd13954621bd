/** A message's writes that have not finished. */
export interface PendingWrite {
  /** Resolves when all is written; rejects where something cannot be. */
  readonly written: Promise<void>
  readonly bytes: number
  /** Whether it is queued for many sessions, in slices of the event loop. */
  readonly isForMany: boolean
}

/** What one account waits for. */
interface Account<T> {
  bytes: number
  /** Messages that are being queued for many sessions. */
  forMany: number
  /** Whether `waitFor` is waiting. */
  isWaiting: boolean
  /** Held back, in order. */
  held: T[]
}

/** Bytes of one account that wait to be written, before further messages of the account are held back. */
const maxBytes = 256 * 1024
/** Bytes of all accounts, before messages of an account with any of them are held back. */
const maxTotalBytes = 32 * 1024 ** 2
/** Messages that are queued for many sessions at a time: of one account, and of the program itself. */
const [maxForMany, maxInternalForMany] = [1, 8]

/** Collaborators. */
export interface UnwrittenMessagesOptions<T> {
  /** Publishes messages that were held back, in order. */
  readonly release: (account: string, messages: readonly T[]) => void
  /** The account of the program itself. */
  readonly internalAccount: string
}

/**
 * Holds messages of an account back while too much of the account waits to be written, so that one account's writes delay no other account.
 */
export class UnwrittenMessages<T> {
  readonly #options: UnwrittenMessagesOptions<T>
  readonly #accounts = new Map<string, Account<T>>()
  #bytes = 0

  constructor(options: UnwrittenMessagesOptions<T>) {
    this.#options = options
  }

  /** Accounts of which anything waits. */
  get size(): number {
    return this.#accounts.size
  }

  /** Whether `message` is held back. */
  holdBack(account: string, message: T): boolean {
    const entry = this.#accounts.get(account)
    if (!entry || !this.#isFull(account, entry)) return false
    entry.held.push(message)
    return true
  }

  /** Counts a message until it is written. */
  add(account: string, { written, bytes, isForMany }: PendingWrite): void {
    const entry = this.#entryOf(account)
    const forMany = isForMany ? 1 : 0
    entry.bytes += bytes
    entry.forMany += forMany
    this.#bytes += bytes
    const settle = (): void => {
      entry.bytes -= bytes
      entry.forMany -= forMany
      this.#bytes -= bytes
      this.#check(account, entry)
    }
    written.then(settle, settle)
  }

  /** Holds further messages of an account back until `message` resolves, which must not reject: to one that comes before them, or to none. */
  waitFor(account: string, message: Promise<T | undefined>): void {
    const entry = this.#entryOf(account)
    entry.isWaiting = true
    void message.then(first => {
      entry.isWaiting = false
      if (first !== undefined) entry.held.unshift(first)
      this.#check(account, entry)
    })
  }

  #entryOf(account: string): Account<T> {
    const known = this.#accounts.get(account)
    if (known) return known
    const entry: Account<T> = { bytes: 0, forMany: 0, isWaiting: false, held: [] }
    this.#accounts.set(account, entry)
    return entry
  }

  #isFull(account: string, { bytes, forMany, isWaiting }: Account<T>): boolean {
    if (isWaiting || forMany >= (account === this.#options.internalAccount ? maxInternalForMany : maxForMany))
      return true
    return bytes > maxBytes || (bytes > 0 && this.#bytes > maxTotalBytes)
  }

  #check(account: string, entry: Account<T>): void {
    if (this.#isFull(account, entry)) return
    if (entry.bytes === 0 && entry.forMany === 0) this.#accounts.delete(account)
    if (entry.held.length > 0) this.#options.release(account, entry.held.splice(0))
  }
}
