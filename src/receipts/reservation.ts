import type { Event } from '../journal/event.js'
import type { Presence } from '../presence/presence.js'
import type { ReceiptQuota } from './receipt-quota.js'
import type { Receipt, ReceiptRequest, ReceiptReservation } from './receipts.js'

/** A request for receipts of an event that was published. */
export interface ReservedRequest extends Pick<ReceiptRequest, 'from' | 'within'> {
  /** The account of the requester. */
  readonly by: string
  /** Without duplicates. */
  readonly devices: readonly string[]
}

export interface ReservationOptions {
  readonly presence: Pick<Presence, 'devicesAt'>
  readonly quota: ReceiptQuota
  readonly maxReceipts: number
  /** Stores the request. `release` is called when its quota is taken otherwise; at the latest, the quota is released with the end of the promise. */
  readonly request: (event: Event, request: ReservedRequest, release: () => void) => Promise<void>
  /** Stores an acknowledgement of an MQTT client. */
  readonly acknowledge: (id: string, client: Pick<Receipt, 'device' | 'user'>) => void
}

/** As `Receipts.reserve`. */
export function reserveReceipts(
  { presence, quota, maxReceipts, request, acknowledge }: ReservationOptions,
  topic: string,
  { from, within }: ReceiptRequest,
  by: string,
): ReceiptReservation {
  const devices = new Set(from === 'present' ? [] : from)
  if (from === 'present' || devices.delete('present')) {
    // One more than the bound, so that too many are refused.
    for (const device of presence.devicesAt(topic, maxReceipts + 1)) devices.add(device)
  }
  const wanted = { by, devices: devices.size }
  quota.require(wanted)
  quota.add(wanted)
  let isTaken = true
  const cancel = (): void => {
    if (isTaken) quota.remove(wanted)
    isTaken = false
  }
  const early: Pick<Receipt, 'device' | 'user'>[] = []
  let id: string | undefined
  const confirm = async (event: Event): Promise<void> => {
    await request(event, { from, within, by, devices: [...devices] }, cancel).finally(cancel)
    id = event.id
    for (const client of early) acknowledge(id, client)
  }
  const acknowledged = (client: Pick<Receipt, 'device' | 'user'>): void => {
    if (!devices.has(client.device)) return
    // A message leaves for its subscribers before it is an event.
    if (id === undefined) early.push(client)
    else acknowledge(id, client)
  }
  return { confirm, cancel, acknowledged }
}
