import type { Message, QoS } from '../mqtt/message.js'

/**
 * Marks a gap in the journal, where messages could not be appended: subscribers that read past it are notified. No message has its topic
 * [MQTT-4.7.3-1].
 */
export const gapMarker: Message = { topic: '', payload: Buffer.alloc(0), qos: 0, retain: false }

export function isGapMarker({ topic }: Pick<Event, 'topic'>): boolean {
  return topic === gapMarker.topic
}

/** A message with its position in the journal. */
export interface Event {
  /** `<epoch>-<sequence>`; opaque to clients, which send it back as a cursor. */
  readonly id: string
  /** Its number in its epoch, from 1 on, consecutive. */
  readonly sequence: number
  readonly topic: string
  /** When it was appended, in milliseconds since 1970. */
  readonly time: number
  readonly payload: Buffer
  readonly qos: QoS
  /** Whether it is the topic's retained message, sent to a new subscriber. */
  readonly retained: boolean
  /** As in `Message`. */
  readonly properties?: Buffer | undefined
  readonly expires?: number | undefined
}

/** Whether a message has expired at the time `now`: it is delivered no more (MQTT 5 §3.3.2.3.3). */
export function isExpired({ expires }: Pick<Message, 'expires'>, now: number): boolean {
  return expires !== undefined && expires <= now
}

export interface EventId {
  readonly epoch: string
  /** 0 is the position before the first event. */
  readonly sequence: number
}

const idPattern = /^([0-9a-z]{15})-(0|[1-9]\d{0,15})$/

/** The id of an event, or of the position after it. */
export function formatId(epoch: string, sequence: number): string {
  return `${epoch}-${sequence}`
}

/** Parses an id; `undefined` for any other text. */
export function parseId(text: string): EventId | undefined {
  const [, epoch, digits] = idPattern.exec(text) ?? []
  const sequence = Number(digits)
  return epoch !== undefined && Number.isSafeInteger(sequence) ? { epoch, sequence } : undefined
}

const timeDigits = 9
const randomDigits = 6

/**
 * A new epoch: the time, so that epochs sort by age, and 31 random bits, for machines whose clock starts at the same time each day.
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
