import type { Channel } from './channel.js'
import { type CountName, countNames, type KnownCount, type KnownCounts, type OwnCounts } from './messages.js'
import { Outbox, takeSome } from './outbox.js'

/** Counts in one message. */
export const maxBatch = 5000

interface Table {
  /** Sums over all workers. */
  readonly sums: Map<string, number>
  readonly members: Map<Member, MemberCounts>
}

interface MemberCounts {
  readonly own: Map<string, number>
  /** Keys whose counts this worker has to be told. */
  readonly untold: Set<string>
}

interface Member {
  readonly outbox: Outbox
}

/**
 * The counts of all workers, in the primary process. Its memory is bounded by the connections of the workers: a key without any is forgotten.
 */
export class CountsKeeper {
  readonly #tables: Readonly<Record<CountName, Table>>
  readonly #members = new Set<Member>()

  constructor() {
    const table = (): Table => ({ sums: new Map(), members: new Map() })
    this.#tables = { connections: table(), users: table(), sockets: table() }
  }

  /** Keys with a count. */
  get size(): number {
    return countNames.reduce((size, name) => size + this.#tables[name].sums.size, 0)
  }

  /** Adds a worker. @returns removes it and its counts */
  add(channel: Channel): () => void {
    const member: Member = { outbox: new Outbox(sent => this.#tell(member, channel, sent)) }
    this.#members.add(member)
    for (const name of countNames) {
      const { members, sums } = this.#tables[name]
      members.set(member, { own: new Map(), untold: new Set(sums.keys()) })
    }
    member.outbox.changed()
    channel.onNotice('ownCounts', counts => this.#update(member, counts))
    return () => {
      this.#members.delete(member)
      for (const name of countNames) {
        const { own } = this.#tables[name].members.get(member) ?? { own: new Map<string, number>() }
        this.#tables[name].members.delete(member)
        for (const [key, count] of own) this.#add(name, key, -count)
      }
    }
  }

  #update(member: Member, counts: OwnCounts): void {
    if (!this.#members.has(member)) return
    for (const name of countNames) {
      const { own } = this.#tables[name].members.get(member) ?? {}
      for (const [key, count] of counts[name] ?? []) {
        const before = own?.get(key) ?? 0
        if (count === 0) own?.delete(key)
        else own?.set(key, count)
        this.#add(name, key, count - before)
      }
    }
  }

  /** Adds to a sum, and tells all workers: the one that has reported it as a confirmation. */
  #add(name: CountName, key: string, amount: number): void {
    const { sums, members } = this.#tables[name]
    const sum = (sums.get(key) ?? 0) + amount
    if (sum === 0) sums.delete(key)
    else sums.set(key, sum)
    for (const [member, { untold }] of members) {
      untold.add(key)
      member.outbox.changed()
    }
  }

  #tell(member: Member, channel: Channel, sent: () => void): boolean {
    const message: Partial<Record<CountName, readonly KnownCount[]>> = {}
    for (const name of countNames) {
      const { sums, members } = this.#tables[name]
      const { own, untold } = members.get(member) ?? {}
      const keys = untold ? takeSome(untold, maxBatch) : []
      if (keys.length === 0) continue
      message[name] = keys.map(key => {
        const count = own?.get(key) ?? 0
        return [key, count, (sums.get(key) ?? 0) - count]
      })
    }
    if (Object.keys(message).length === 0) return false
    channel.notify('knownCounts', message satisfies KnownCounts, sent)
    return true
  }
}
