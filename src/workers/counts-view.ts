import type { OtherCounts } from '../base/other-counts.js'
import type { Channel } from './channel.js'
import { maxBatch } from './counts-keeper.js'
import { type CountName, countNames, type KnownCount, type OwnCount } from './messages.js'
import { Outbox, takeSome } from './outbox.js'

/**
 * Connections of one key that a worker may count without assuming that each of the others has counted as many meanwhile: enough for a page that
 * opens several on one HTTP/2 connection.
 */
const allowance = 8

/** The counts of all workers, as one of them sees them. */
export class CountsView {
  readonly #views: Readonly<Record<CountName, View>>

  /** @param workers number of workers */
  constructor(channel: Channel, workers: number) {
    const outbox = new Outbox(sent => {
      const message: Partial<Record<CountName, readonly OwnCount[]>> = {}
      for (const name of countNames) {
        const changes = this.#views[name].takeChanges()
        if (changes.length > 0) message[name] = changes
      }
      if (Object.keys(message).length === 0) return false
      channel.notify('ownCounts', message, sent)
      return true
    })
    const view = (): View => new View(workers - 1, () => outbox.changed())
    this.#views = { connections: view(), users: view(), sockets: view() }
    channel.onNotice('knownCounts', known => {
      for (const name of countNames) this.#views[name].update(known[name] ?? [])
    })
  }

  others(name: CountName): OtherCounts {
    return this.#views[name]
  }
}

/** Counts of one key: of this worker, the same as the primary process knows it, and of the others. */
interface Count {
  own: number
  known: number
  others: number
}

class View implements OtherCounts {
  readonly #others: number
  readonly #onChange: () => void
  readonly #counts = new Map<string, Count>()
  readonly #changed = new Set<string>()
  /** The sums of all counts. */
  readonly #totals: Count = { own: 0, known: 0, others: 0 }

  constructor(others: number, onChange: () => void) {
    this.#others = others
    this.#onChange = onChange
  }

  get total(): number {
    return this.#estimate(this.#totals)
  }

  of(key: string): number {
    const count = this.#counts.get(key)
    return count ? this.#estimate(count) : 0
  }

  set(key: string, own: number): void {
    this.#change(key, { own })
    this.#changed.add(key)
    this.#onChange()
  }

  takeChanges(): OwnCount[] {
    return takeSome(this.#changed, maxBatch).map(key => [key, this.#counts.get(key)?.own ?? 0])
  }

  update(known: readonly KnownCount[]): void {
    for (const [key, own, others] of known) this.#change(key, { known: own, others })
  }

  /** What the others count. While the primary process does not know all of this worker's count, it does not know all of theirs either. */
  #estimate({ own, known, others }: Count): number {
    return others + this.#others * Math.max(0, own - known - allowance)
  }

  #change(key: string, change: Partial<Count>): void {
    const before = this.#counts.get(key) ?? { own: 0, known: 0, others: 0 }
    const after = { ...before, ...change }
    for (const part of ['own', 'known', 'others'] as const) this.#totals[part] += after[part] - before[part]
    if (after.own === 0 && after.known === 0 && after.others === 0) this.#counts.delete(key)
    else this.#counts.set(key, after)
  }
}
