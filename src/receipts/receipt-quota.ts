import { GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'

/** The account that requests receipts of one event, and the number of devices. */
export interface PendingReceipts {
  readonly by: string
  readonly devices: number
}

/** Quota of the receipts and events that are waited for, shared by accounts. */
export class ReceiptQuota {
  readonly #devices: FairQuota
  readonly #events: FairQuota

  constructor({ maxReceipts, maxRequests }: { readonly maxReceipts: number; readonly maxRequests: number }) {
    this.#devices = new FairQuota(maxReceipts)
    this.#events = new FairQuota(maxRequests)
  }

  /** Requested devices, and the events that they are requested for, whose deadline has not passed. */
  get outstanding(): { readonly devices: number; readonly events: number } {
    return { devices: this.#devices.total, events: this.#events.total }
  }

  /** @throws {GatewayError} `too-many-receipts` if the account has too many, `receipts-full` if all together have */
  require({ by, devices }: PendingReceipts): void {
    for (const [quota, amount, things, option] of [
      [this.#devices, devices, 'devices', 'push.maxReceipts'],
      [this.#events, 1, 'messages', undefined],
    ] as const) {
      const exceeded = quota.exceededBy(by, amount)
      if (exceeded === undefined) continue
      if (exceeded === 'all') {
        const room = `there is room for ${quota.max} ${things} in all`
        throw new GatewayError('receipts-full', { hint: option === undefined ? room : `${room} (${option})` })
      }
      const own = `of ${quota.of(by)} ${things}, and ${amount} more; one user or address may wait for ${quota.half}`
      throw new GatewayError('too-many-receipts', { hint: option === undefined ? own : `${own} (half of ${option})` })
    }
  }

  add({ by, devices }: PendingReceipts): void {
    this.#devices.take(by, devices)
    this.#events.take(by, 1)
  }

  remove({ by, devices }: PendingReceipts): void {
    this.#devices.giveBack(by, devices)
    this.#events.giveBack(by, 1)
  }
}
