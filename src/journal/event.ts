import type { Message, QoS } from '../mqtt/message.js'

/**
 * Stands in a journal where messages are missing that nobody could write down: whoever reads past it is told. No message
 * has this topic [MQTT-4.7.3-1].
 */
export const gapMarker: Message = { topic: '', payload: Buffer.alloc(0), qos: 0, retain: false }

/** Whether an event is no message, but the place of those that are missing. */
export function isGapMarker({ topic }: Pick<Event, 'topic'>): boolean {
  return topic === gapMarker.topic
}

/** A message with its place in the journal. */
export interface Event {
  /** `<epoch>-<sequence>`. Clients keep it and hand it back, and read nothing out of it. */
  readonly id: string
  /** Its number in its epoch, from 1 on and without holes. */
  readonly sequence: number
  readonly topic: string
  /** When it was written down, in milliseconds since 1970. */
  readonly time: number
  readonly payload: Buffer
  readonly qos: QoS
  /** Whether this is the state of its topic, told to somebody who was not there when it was news. */
  readonly retained: boolean
}

/** What an id says. */
export interface EventId {
  readonly epoch: string
  /** 0 is the place before the first event. */
  readonly sequence: number
}

const form = /^([0-9a-z]{15})-(0|[1-9]\d{0,15})$/

/** The id of an event, or of the place after it. */
export function formatId(epoch: string, sequence: number): string {
  return `${epoch}-${sequence}`
}

/** Reads an id; `undefined` for any text that `formatId` does not make. */
export function parseId(text: string): EventId | undefined {
  const [, epoch, digits] = form.exec(text) ?? []
  const sequence = Number(digits)
  return epoch !== undefined && Number.isSafeInteger(sequence) ? { epoch, sequence } : undefined
}

/** Negative where `a` comes before `b`, 0 for the same, positive after; `undefined` for different epochs: nobody knows. */
export function compareIds(a: EventId, b: EventId): number | undefined {
  return a.epoch === b.epoch ? a.sequence - b.sequence : undefined
}

const timeDigits = 9
const randomDigits = 6

/**
 * Names a new epoch: the time, so that epochs sort by age where the clock was right, and 31 random bits, because a machine
 * without a battery begins each day at the same time.
 *
 * @param now milliseconds since 1970, before the year 5188
 */
export function newEpoch(now: number): string {
  const random = Math.floor(Math.random() * 36 ** randomDigits)
  return base36(now, timeDigits) + base36(random, randomDigits)
}

function base36(value: number, digits: number): string {
  return Math.max(0, Math.floor(value)).toString(36).padStart(digits, '0').slice(-digits)
}
