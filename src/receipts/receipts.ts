import type { Event } from '../journal/event.js'

/** The status of an event on a device, in this order. */
export type ReceiptStatus = 'received' | 'processed' | 'failed'

/** A device's acknowledgement of an event. */
export interface Receipt {
  readonly device: string
  readonly status: ReceiptStatus
  /** In milliseconds since 1970. */
  readonly time: number
  /** At most 1 KiB of text. */
  readonly detail?: string | undefined
  /** The authenticated user: device names can be chosen freely. */
  readonly user?: string | undefined
}

/** A publisher's request for receipts. */
export interface ReceiptRequest {
  /** Device names; `present`, also among the names, is all that are present on the topic when the event is published. */
  readonly from: readonly string[] | 'present'
  /** In milliseconds. */
  readonly within: number
}

/** A report on the delivery of an event. */
export interface ReceiptReport {
  readonly event: { readonly id: string; readonly topic: string; readonly time: number }
  readonly requested:
    | {
        readonly from: readonly string[] | 'present'
        /** Requested devices, of which `devices` may list fewer. */
        readonly count: number
        readonly devices: readonly string[]
        /** In milliseconds since 1970. */
        readonly deadline: number
        /** The listed devices without a receipt at the deadline; `undefined` before it. */
        readonly missed: readonly string[] | undefined
      }
    | undefined
  /** Requested devices to whose connection the event has been written. */
  readonly written: readonly string[]
  /** In a stable order of devices. */
  readonly receipts: readonly Receipt[]
}

/** One page of a report; all its lists have the same order. */
export interface ReportOptions {
  /** Devices of each list. Default: 1000 */
  readonly limit?: number | undefined
  /** The device before the first of the page. */
  readonly after?: string | undefined
  /** UTF-16 units of each list; at least one device is listed. Default: no limit */
  readonly maxText?: number | undefined
}

/** Reserved quota for the receipts of a message that is about to be published. */
export interface ReceiptReservation {
  /**
   * Requests the receipts. To be called once, in the tick in which the event is appended, so that its deliveries are tracked. No effect if they
   * are requested already.
   *
   * @throws {GatewayError} rejects with `journal-unavailable`; the quota is released
   */
  confirm(event: Event): Promise<void>
  /** Call when an MQTT client has acknowledged the message, also before `confirm`: see `Receipts.acknowledged`. */
  acknowledged(client: Pick<Receipt, 'device' | 'user'>): void
  /** Releases the quota, unless confirmed. Idempotent. */
  cancel(): void
}

/** Stores receipts and requests for them, and publishes receipts and missed deadlines. */
export interface Receipts {
  /** Requested devices, and their events, whose deadline has not passed. */
  readonly outstanding: { readonly devices: number; readonly events: number }
  /**
   * Stores a receipt, and publishes it. A repetition, or an earlier status than the stored one, changes nothing.
   *
   * @returns the stored receipt, and whether it is new; `undefined` if there is no such event
   */
  record(
    id: string,
    receipt: Omit<Receipt, 'time'>,
  ): Promise<{ readonly receipt: Receipt; readonly fresh: boolean } | undefined>
  /**
   * Stores `received` for an MQTT client that has acknowledged an event (PUBACK or PUBCOMP), where its receipt is requested and the deadline has not
   * passed.
   *
   * @param client its user, and its device: the user, else the client id
   * @returns whether it is stored now
   * @throws {GatewayError} rejects with `journal-unavailable`
   */
  acknowledged(id: string, client: Pick<Receipt, 'device' | 'user'>): Promise<boolean>
  /**
   * Reserves quota for the receipts of a message that is to be published; `present` is resolved now.
   *
   * @param by the account, such as a user or an address
   * @throws {GatewayError} `too-many-receipts` if the account has too many, `receipts-full` if all together have
   */
  reserve(topic: string, request: ReceiptRequest, by: string): ReceiptReservation
  /**
   * The report on an event; `undefined` if there is no such event.
   *
   * @throws {GatewayError} rejects with `journal-unavailable`, as all of these do
   */
  report(id: string, options?: ReportOptions): Promise<ReceiptReport | undefined>
  /** The topic of an event; `undefined` if there is no such event. */
  topicOf(id: string): Promise<string | undefined>
  close(): Promise<void>
}
