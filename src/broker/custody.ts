import type { Custodian } from './broker.js'

/** An acknowledgement that waits until so many messages are kept. */
interface Held {
  readonly until: number
  readonly release: () => void
}

/** What a custody needs. */
export interface CustodyOptions {
  readonly custodian: Custodian
  /** For how long nothing may be kept while acknowledgements wait, in milliseconds. */
  readonly patience: number
}

/**
 * Holds acknowledgements back until somebody who gets the messages has kept them: so a publisher that was told so finds its
 * message kept, and nothing has to be stored for whoever keeps it.
 *
 * Messages are counted, in the order in which they are handed over. What goes on meanwhile is not held up. It holds
 * nothing back for long when nothing is kept any more: then it lapses, until something is.
 */
export class Custody {
  readonly #options: CustodyOptions
  /** Messages that were handed over, those of them that are kept, and how many there were before the current one. */
  #handed = 0
  #kept = 0
  #mark = 0
  /** In the order in which they are given. */
  #held: Held[] = []
  /** Until how many messages are kept something of the same client waits [MQTT-4.6.0-2]. */
  readonly #last = new WeakMap<object, number>()
  #state: 'holding' | 'lapsing' | 'lapsed' = 'holding'
  #ended = false
  /** Messages that were handed over when acknowledgements were held back again, and some of them acknowledged before. */
  #loose: number | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(options: CustodyOptions) {
    this.#options = options
  }

  /** Call when a message is about to be given to its subscribers. */
  begin(): void {
    this.#mark = this.#handed
  }

  /** Call when a message is handed over: written, or about to be, behind those before it. */
  handOver(): void {
    this.#handed++
  }

  /**
   * Gives an acknowledgement: at once, or when the message is kept; those to one client in their order.
   *
   * @param client who published it; none for a message of nobody who is there
   * @param release gives it
   */
  settle(client: object | null, release: () => void): void {
    const last = (client && this.#last.get(client)) ?? 0
    const waits = this.#handed > this.#mark || last > this.#kept || this.#state === 'lapsing'
    this.#mark = this.#handed
    if (this.#state === 'lapsed' || !waits) {
      release()
      return
    }
    if (client) this.#last.set(client, this.#handed)
    this.#held.push({ until: this.#handed, release })
    this.#options.custodian.awaited(this.#handed)
    this.#timer ??= setTimeout(() => this.#lapse(), this.#options.patience).unref()
  }

  /** Call when so many more messages are kept. */
  keep(count: number): void {
    this.#kept += count
    if (this.#ended) return
    this.#timer?.refresh()
    this.#release(this.#kept)
    if (this.#state === 'lapsed') {
      this.#state = 'holding'
      this.#loose = this.#handed
    }
    if (this.#loose === undefined || this.#kept < this.#loose) return
    this.#loose = undefined
    this.#options.custodian.restored()
  }

  /** Call when nothing more will be kept. */
  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#lapse()
  }

  #lapse(): void {
    if (this.#state !== 'holding' && !this.#ended) return
    this.#state = 'lapsing'
    this.#loose = undefined
    const { custodian } = this.#options
    void custodian.lapsed().finally(() => {
      this.#release(Number.POSITIVE_INFINITY)
      const isWhole = !this.#ended && this.#kept >= this.#handed
      this.#state = isWhole ? 'holding' : 'lapsed'
      if (isWhole) custodian.restored()
    })
  }

  #release(kept: number): void {
    let count = 0
    for (const { until } of this.#held) {
      if (until > kept) break
      count++
    }
    for (const { release } of this.#held.splice(0, count)) release()
    if (this.#held.length > 0) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
