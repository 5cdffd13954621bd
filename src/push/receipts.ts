import type { Event } from './event.js'

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
}

/** Whose receipts a publisher wants. */
export interface ReceiptRequest {
  /** Names of devices, or all that are present on the event's topic when it is published. */
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
        readonly devices: readonly string[]
        /** In milliseconds since 1970. */
        readonly deadline: number
        /** Devices without a receipt at the deadline; `undefined` before it. */
        readonly missed: readonly string[] | undefined
      }
    | undefined
  /** Devices to whose connection the event has been written: of those that were asked. */
  readonly written: readonly string[]
  /** In an order of the devices that stays the same. */
  readonly receipts: readonly Receipt[]
}

/** Which receipts a report has. */
export interface ReportOptions {
  /** How many at most. Default: 1000 */
  readonly limit?: number | undefined
  /** The last device of the report before it. */
  readonly after?: string | undefined
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
   * Wants receipts of an event from now on. To be called as soon as it is published, so that it is known to whom it is
   * written.
   *
   * @throws {Ending} rejects with `receipts-full` where too many are waited for
   */
  request(event: Event, request: ReceiptRequest): Promise<void>
  /**
   * What is known of an event; `undefined` where there is no such event.
   *
   * @throws {Ending} rejects with `journal-unavailable`, as all of these do
   */
  report(id: string, options?: ReportOptions): Promise<ReceiptReport | undefined>
  /** The topic of an event; `undefined` where there is no such event. */
  topicOf(id: string): Promise<string | undefined>
  close(): Promise<void>
}
