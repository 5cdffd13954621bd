import { Ending } from '../../endings.js'
import { Shares } from './shares.js'

/** On whose behalf receipts of an event are waited for, and of how many devices. */
export interface AwaitedEvent {
  readonly by: string
  readonly devices: number
}

/** Counts the receipts that are waited for, and the events that they are of, so that nobody takes all the room for them. */
export class Awaited {
  readonly #devices: Shares
  readonly #events: Shares

  constructor({ maxReceipts, maxRequests }: { readonly maxReceipts: number; readonly maxRequests: number }) {
    this.#devices = new Shares(maxReceipts)
    this.#events = new Shares(maxRequests)
  }

  /** @throws {Ending} `too-many-receipts` where whoever it is has too many, `receipts-full` where all together have */
  require({ by, devices }: AwaitedEvent): void {
    for (const [shares, amount, things, option] of [
      [this.#devices, devices, 'devices', 'push.maxReceipts'],
      [this.#events, 1, 'messages', undefined],
    ] as const) {
      const limit = shares.limit(by, amount)
      if (limit === undefined) continue
      if (limit === 'all') {
        const room = `there is room for ${shares.most} ${things} in all`
        throw new Ending('receipts-full', { hint: option === undefined ? room : `${room} (${option})` })
      }
      const own = `of ${shares.of(by)} ${things}, and ${amount} more; one user or address may wait for ${shares.half}`
      throw new Ending('too-many-receipts', { hint: option === undefined ? own : `${own} (half of ${option})` })
    }
  }

  add({ by, devices }: AwaitedEvent): void {
    this.#devices.take(by, devices)
    this.#events.take(by, 1)
  }

  remove({ by, devices }: AwaitedEvent): void {
    this.#devices.giveBack(by, devices)
    this.#events.giveBack(by, 1)
  }
}
