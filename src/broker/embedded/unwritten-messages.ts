/** Unfinished writes of a message. */
export interface PendingWrite {
  /** Resolves when all is written; rejects when a write fails. */
  readonly written: Promise<void>
  readonly bytes: number
  /** Whether it is queued for many sessions, in time slices. */
  readonly isForMany: boolean
}

interface Account<T> {
  writes: number
  bytes: number
  forMany: number
  isWaiting: boolean
  held: T[]
}

/** Unwritten bytes of one account above which its further messages are held back. */
const maxBytes = 256 * 1024
/** Unwritten bytes of all accounts above which messages of each account with unwritten bytes are held back. */
const maxTotalBytes = 32 * 1024 ** 2
/** Messages being queued for many sessions at a time: of one account, and of the gateway itself. */
const [maxForMany, maxInternalForMany] = [1, 8]

export interface UnwrittenMessagesOptions<T> {
  readonly release: (account: string, messages: readonly T[]) => void
  readonly internalAccount: string
}

/**
 * Holds back messages of an account with too many unwritten bytes, so that one account's writes delay no other account.
 */
export class UnwrittenMessages<T> {
  readonly #options: UnwrittenMessagesOptions<T>
  readonly #accounts = new Map<string, Account<T>>()
  #bytes = 0

  constructor(options: UnwrittenMessagesOptions<T>) {
    this.#options = options
  }

  /** Accounts with unwritten or held-back messages. */
  get size(): number {
    return this.#accounts.size
  }

  /** Holds `message` back where its account must wait; returns whether it does. */
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
    entry.writes++
    entry.bytes += bytes
    entry.forMany += forMany
    this.#bytes += bytes
    const settle = (): void => {
      entry.writes--
      entry.bytes -= bytes
      entry.forMany -= forMany
      this.#bytes -= bytes
      this.#check(account, entry)
    }
    written.then(settle, settle)
  }

  /** Holds back further messages of an account until `message` resolves to the first of them, or to none. It must not reject. */
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
    const entry: Account<T> = { writes: 0, bytes: 0, forMany: 0, isWaiting: false, held: [] }
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
    if (entry.writes === 0) this.#accounts.delete(account)
    if (entry.held.length > 0) this.#options.release(account, entry.held.splice(0))
  }
}
