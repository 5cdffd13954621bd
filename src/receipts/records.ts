import type { KeyRange } from '../storage/store.js'
import type { ReceiptStatus } from './receipts.js'

/*
 * The records of receipts. A key is a letter for the kind, then numbers of sixteen digits, so that keys sort as numbers do,
 * or a device.
 *
 *   r/<sequence>/<device>   a receipt
 *   o/<order>               the event and the device of a receipt, in the order of arrival of first receipts
 *   q/<sequence>            a request for receipts of an event
 *   k/<sequence>/<device>   a requested device, and whether it had a receipt at the deadline
 *   d/<deadline>/<sequence> a request whose deadline has not passed, with its account and number of devices
 *   f/<deadline>/<sequence> a request whose deadline has passed
 *   w/<sequence>/<device>   a requested device to which the event has been written
 *   m/<number>              a message to be published
 *   s                       the state
 */

export const stateKey = 's'

/** Kinds of keys about events. */
export const eventKinds = ['r', 'o', 'q', 'k', 'd', 'f', 'w'] as const

export type Kind = (typeof eventKinds)[number] | 'm'

const digits = 16

function number(value: number): string {
  return String(value).padStart(digits, '0')
}

/** The key of a kind with up to two parts. */
export function keyOf(kind: Kind, first: number, second?: number | string): string {
  const start = `${kind}/${number(first)}`
  if (second === undefined) return start
  return `${start}/${typeof second === 'number' ? number(second) : second}`
}

/** All keys of a kind, or those with this first part. */
export function allOf(kind: Kind, first?: number): KeyRange {
  const start = first === undefined ? kind : `${kind}/${number(first)}`
  // `0` follows the slash in ASCII.
  return { gte: `${start}/`, lt: `${start}0` }
}

/** The keys of a kind whose first part is less than `first`. */
export function before(kind: Kind, first: number): KeyRange {
  return { gte: `${kind}/`, lt: keyOf(kind, first) }
}

/** The first part of a key. */
export function firstOf(key: string): number {
  return Number(key.slice(2, 2 + digits))
}

/** The second part of a key. */
export function secondOf(key: string): string {
  return key.slice(3 + digits)
}

/** An event, as receipts need it. */
export interface ReceiptEvent {
  readonly id: string
  readonly sequence: number
  readonly topic: string
  readonly time: number
}

/** The repository's state; written with each batch. */
export interface RepositoryState {
  /** The epoch of the journal. */
  readonly epoch: string
  /** Stored receipts. */
  readonly receipts: number
  /** The number of the next receipt. */
  readonly order: number
  /** Stored requests, and the devices of all of them. */
  readonly requests: number
  readonly asked: number
  /** Queued messages, and the number of the next one. */
  readonly messages: number
  readonly message: number
}

export interface ReceiptRecord {
  readonly order: number
  readonly status: ReceiptStatus
  readonly time: number
  readonly detail?: string | undefined
  /** The authenticated user. */
  readonly user?: string | undefined
}

/** The key of a receipt. */
export type OrderRecord = readonly [sequence: number, device: string]

export interface RequestRecord {
  readonly id: string
  readonly topic: string
  /** The time of the event. */
  readonly time: number
  readonly from: readonly string[] | 'present'
  /** Requested devices. */
  readonly asked: number
  readonly deadline: number
  /** Whether the deadline has passed. */
  readonly closed: boolean
}

/** Whether a requested device has a receipt; before the deadline, only set where the receipt was dropped. */
export type AskedRecord = boolean

export interface MessageRecord {
  readonly topic: string
  readonly payload: string
  /** Messages of one group are published in order. */
  readonly group: string
}

/** The longest prefix of a list that is no larger than `most`, and at least one element. */
export function upTo<T>(list: readonly T[], most: number, sizeOf: (item: T) => number): T[] {
  let size = 0
  const end = list.findIndex((item, index) => {
    size += sizeOf(item)
    return size > most && index > 0
  })
  return list.slice(0, end === -1 ? list.length : end)
}

/** A time in ISO 8601. */
export function iso(time: number): string {
  return new Date(time).toISOString()
}
