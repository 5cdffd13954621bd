/** What waits for one of the program's own connections. */
export interface OwnEnd {
  /** In bytes. */
  readonly waitingBytes: number
}

/** Bounds of holding back. */
export interface OwnBacklogOptions {
  /** How many bytes may wait for one own connection before those who publish wait. */
  readonly mark: number
  /** For how long nothing may be read before publishers wait no longer, in milliseconds. */
  readonly patience: number
}

/** So many held messages go on in one turn of the event loop, at most. */
const portion = 128

/**
 * Holds those who publish back while the program's own session has more to read than it keeps up with: a burst of QoS 0
 * must not be lost on the way to the journal, as it may be for other subscribers. It is not held back for long by one that
 * reads nothing at all: then the own session is one subscriber among others, until it reads again.
 */
export class OwnBacklog {
  readonly #options: OwnBacklogOptions
  readonly #ends = new Set<OwnEnd>()
  #held: (() => void)[] = []
  #looking = false
  #stalled = false
  #timer: NodeJS.Timeout | undefined

  constructor(options: OwnBacklogOptions) {
    this.#options = options
  }

  /** Whether what is published must not be dropped for an own connection; if so, those who publish are held back for it. */
  get protects(): boolean {
    return !this.#stalled
  }

  /** Messages that wait. */
  get held(): number {
    return this.#held.length
  }

  add(end: OwnEnd): void {
    this.#ends.add(end)
  }

  remove(end: OwnEnd): void {
    this.#ends.delete(end)
    this.progressed()
  }

  /** Calls `proceed`: at once, or when there is room, in the order in which they came. */
  admit(proceed: () => void): void {
    if (this.#held.length === 0 && (this.#stalled || !this.#isHigh())) {
      proceed()
      return
    }
    this.#held.push(proceed)
    this.#timer ??= setTimeout(() => this.#giveUp(), this.#options.patience).unref()
  }

  /** Call when an own connection has read something. */
  progressed(): void {
    this.#stalled = false
    this.#timer?.refresh()
    if (this.#looking || this.#held.length === 0) return
    this.#looking = true
    // What has been read is counted until it has been handed over.
    setImmediate(() => this.#look())
  }

  #look(): void {
    this.#looking = false
    if (!this.#stalled && this.#isHigh()) return
    for (const proceed of this.#held.splice(0, portion)) proceed()
    if (this.#held.length > 0) {
      this.#looking = true
      setImmediate(() => this.#look())
      return
    }
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #giveUp(): void {
    this.#timer = undefined
    this.#stalled = true
    this.#look()
  }

  #isHigh(): boolean {
    for (const { waitingBytes } of this.#ends) if (waitingBytes >= this.#options.mark) return true
    return false
  }
}
