import type { Event } from '../journal/event.js'

/** What became of an event on a device, in the order in which that goes. */
export type ReceiptStatus = 'received' | 'processed' | 'failed'

/** What a device says of an event. */
export interface Receipt {
  readonly device: string
  readonly status: ReceiptStatus
  /** When it was said, in milliseconds since 1970. */
  readonly time: number
  /** At most 1 KiB of text. */
  readonly detail?: string | undefined
  /** Who it is from, where that was proven: anybody may give a device any name. */
  readonly user?: string | undefined
}

/** Whose receipts a publisher wants. */
export interface ReceiptRequest {
  /** Names of devices, or all that are present on the event's topic when it is published; as a name, too. */
  readonly from: readonly string[] | 'present'
  /** In milliseconds. */
  readonly within: number
}

/** What is known of an event's delivery. */
export interface ReceiptReport {
  readonly event: { readonly id: string; readonly topic: string; readonly time: number }
  readonly requested:
    | {
        readonly from: readonly string[] | 'present'
        /** How many devices were asked, however many are listed. */
        readonly count: number
        readonly devices: readonly string[]
        /** In milliseconds since 1970. */
        readonly deadline: number
        /** Those of the listed devices without a receipt at the deadline; `undefined` before it. */
        readonly missed: readonly string[] | undefined
      }
    | undefined
  /** Devices to whose connection the event has been written: of those that were asked. */
  readonly written: readonly string[]
  /** In an order of the devices that stays the same. */
  readonly receipts: readonly Receipt[]
}

/** Which devices each list of a report has; all lists are in the same order. */
export interface ReportOptions {
  /** How many at most. Default: 1000 */
  readonly limit?: number | undefined
  /** Those after this one. */
  readonly after?: string | undefined
  /** UTF-16 units that a list may have, but for one device. Default: any number */
  readonly maxText?: number | undefined
}

/** Room for the receipts of a message that is about to be published. */
export interface ReceiptReservation {
  /**
   * Wants the receipts from now on. To be called once, as soon as the message is an event, so that it is known to whom it
   * is written; nothing happens where they are wanted already.
   *
   * @throws {GatewayError} rejects with `journal-unavailable`; the room is given back
   */
  confirm(event: Event): Promise<void>
  /** Gives the room back, unless it is confirmed. Idempotent. */
  cancel(): void
}

/** Keeps receipts, asks for them, and notices what is missing. */
export interface Receipts {
  /**
   * Notes what a device says of an event, and publishes it. The same again changes nothing, and so does what is earlier
   * than what is known.
   *
   * @returns what is known now, and whether this was new; `undefined` where there is no such event
   */
  record(
    id: string,
    receipt: Omit<Receipt, 'time'>,
  ): Promise<{ readonly receipt: Receipt; readonly fresh: boolean } | undefined>
  /**
   * Makes room for the receipts of a message that is to be published; those that are present are so now.
   *
   * @param by whose room it is, such as a user or an address: nobody gets all of it
   * @throws {GatewayError} `too-many-receipts` where these have too many, `receipts-full` where all together have
   */
  reserve(topic: string, request: ReceiptRequest, by: string): ReceiptReservation
  /**
   * What is known of an event; `undefined` where there is no such event.
   *
   * @throws {GatewayError} rejects with `journal-unavailable`, as all of these do
   */
  report(id: string, options?: ReportOptions): Promise<ReceiptReport | undefined>
  /** The topic of an event; `undefined` where there is no such event. */
  topicOf(id: string): Promise<string | undefined>
  close(): Promise<void>
}
