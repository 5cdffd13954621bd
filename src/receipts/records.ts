import type { ReceiptStatus } from './receipts.js'
import type { KeyRange } from './store.js'

/*
 * What is written of receipts. A key is a letter for the kind, and then numbers of sixteen digits, so that keys sort as
 * numbers do, or a device.
 *
 *   r/<sequence>/<device>   a receipt
 *   o/<order>               the event and the device of a receipt, in the order in which receipts first came
 *   q/<sequence>            whose receipts of an event are wanted
 *   k/<sequence>/<device>   a device of those, and whether it had answered at the deadline
 *   d/<deadline>/<sequence> such an event whose deadline is to come, with who waits for how many
 *   f/<deadline>/<sequence> such an event whose deadline has passed
 *   w/<sequence>/<device>   a device of those to which the event has been written
 *   m/<number>              a message to be published
 *   s                       the state
 */

export const stateKey = 's'

/** Kinds of keys that are about events. */
const eventKinds = ['r', 'o', 'q', 'k', 'd', 'f', 'w'] as const

/** Kinds that are forgotten with the events; one of them is of an earlier form. */
export const forgottenKinds = [...eventKinds, 'a'] as const

export type Kind = (typeof forgottenKinds)[number] | 'm'

/** Changes with what is written of an event; what was written in another form is forgotten. */
export const currentForm = 2

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

/** All keys of a kind; with a number, those whose first part it is. */
export function allOf(kind: Kind, first?: number): KeyRange {
  const start = first === undefined ? kind : `${kind}/${number(first)}`
  // What follows the slash in ASCII.
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

/** An event, as far as receipts are about it. */
export interface ReceiptEvent {
  readonly id: string
  readonly sequence: number
  readonly topic: string
  readonly time: number
}

/** What the book knows of itself; changed with each batch. */
export interface RepositoryState {
  /** Of the journal whose events these are. */
  readonly epoch: string
  /** Of what is written (`currentForm`); the first one is not named. */
  readonly form?: number
  /** How many receipts there are. */
  readonly receipts: number
  /** The number of the next one. */
  readonly order: number
  /** How many events there are whose receipts are or were wanted, and of how many devices together. */
  readonly requests: number
  readonly asked: number
  /** How many messages are to be published, and the number of the next one. */
  readonly messages: number
  readonly message: number
}

export interface ReceiptRecord {
  readonly order: number
  readonly status: ReceiptStatus
  readonly time: number
  readonly detail?: string | undefined
  /** Who it is from, where that was proven. */
  readonly user?: string | undefined
}

/** Where a receipt is. */
export type OrderRecord = readonly [sequence: number, device: string]

export interface RequestRecord {
  readonly id: string
  readonly topic: string
  /** When the event was written down. */
  readonly time: number
  readonly from: readonly string[] | 'present'
  /** How many devices were asked. */
  readonly asked: number
  readonly deadline: number
  /** Whether the deadline has passed. */
  readonly closed: boolean
}

/** Whether a device that was asked has answered: before the deadline, only where its receipt had to go since. */
export type AskedRecord = boolean

export interface MessageRecord {
  readonly topic: string
  readonly payload: string
  /** Messages of one group are published one after the other. */
  readonly group: string
}

/** The first of a list that are together no larger than `most`; one at least, where there is one. */
export function upTo<T>(list: readonly T[], most: number, sizeOf: (item: T) => number): T[] {
  let size = 0
  const end = list.findIndex((item, index) => {
    size += sizeOf(item)
    return size > most && index > 0
  })
  return list.slice(0, end === -1 ? list.length : end)
}

/** A time as others read it. */
export function iso(time: number): string {
  return new Date(time).toISOString()
}
