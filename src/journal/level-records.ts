import type { Level } from 'level'
import type { QoS } from '../mqtt/message.js'
import { DamagedRecord } from '../storage/open-level.js'
import { type Event, formatId } from './event.js'
import type { RetainedEntry } from './retained-messages.js'

/** A database with binary keys and values. */
export type Database = Level<Buffer, Buffer>

/*
 * Records of the journal in LevelDB. A key is one letter for the kind, and then the number of a share (two bytes) and a sequence (six), both
 * big-endian, or a topic: the keys of a share sort by sequence.
 *
 *   e <share> <sequence>  an event, with its payload unless that is large
 *   p <share> <sequence>  a large payload
 *   i <share> <sequence>  the topics of the segment with this last event (see level-segment.ts)
 *   l <share> <sequence>  the sizes and times of its events
 *   r <topic>             a topic's retained message, with its payload unless that is large
 *   q <topic>             its large payload
 *   n <topic>             its sequence and size, and when it expires, if it does
 *   s                     the state: epoch, head, and the extent of each share
 *   c                     the topics of the shares that have rules (see shares.ts)
 *   o                     the boot id of the machine that opened it, or that it was closed
 */

/** Larger payloads are stored beside their events, which can be read without them. In bytes. */
export const largePayload = 16 * 1024

export const stateKey = Buffer.from('s')
export const openedKey = Buffer.from('o')

export const sharesKey = Buffer.from('c')

/** The largest sequence that a key can have. */
export const maxSequence = 2 ** 48 - 1

/** The key of an event (`e`), a payload (`p`) or a segment (`i`, `l`). */
export function sequenceKey(kind: 'e' | 'p' | 'i' | 'l', share: number, sequence: number): Buffer {
  const key = Buffer.allocUnsafe(9)
  key.write(kind, 0, 'latin1')
  key.writeUInt16BE(share, 1)
  // Without a BigInt, as it is called for each event.
  key.writeUIntBE(sequence, 3, 6)
  return key
}

export function readSequence(key: Buffer): number {
  return key.readUIntBE(3, 6)
}

export function topicKey(kind: 'r' | 'q' | 'n', topic: string): Buffer {
  return Buffer.from(kind + topic)
}

export function readTopicKey(key: Buffer): string {
  return key.toString('utf8', 1)
}

const headerLength = 1 + 8 + 8 + 2 + 4
const [largeFlag, propertiesFlag, expiresFlag] = [4, 8, 16]

/** A stored event, without its large payload. */
export interface StoredEvent {
  readonly event: Event
  /** Length of the payload beside it; `undefined` without one. */
  readonly large: number | undefined
}

/**
 * Flags, sequence, time, length of topic and payload; the topic; when it expires, if it does; length of the properties, and these, if there are any;
 * the payload unless it is large.
 */
export function encodeEvent({ sequence, topic, time, payload, qos, properties, expires }: Event): Buffer {
  const large = payload.length > largePayload
  const topicLength = Buffer.byteLength(topic)
  const extraLength = (expires === undefined ? 0 : 8) + (properties ? 4 + properties.length : 0)
  const record = Buffer.allocUnsafe(headerLength + topicLength + extraLength + (large ? 0 : payload.length))
  const extras = (properties ? propertiesFlag : 0) | (expires === undefined ? 0 : expiresFlag)
  record.writeUInt8(qos | (large ? largeFlag : 0) | extras, 0)
  record.writeDoubleBE(sequence, 1)
  record.writeDoubleBE(time, 9)
  record.writeUInt16BE(topicLength, 17)
  record.writeUInt32BE(payload.length, 19)
  record.write(topic, headerLength)
  let at = headerLength + topicLength
  if (expires !== undefined) at = record.writeDoubleBE(expires, at)
  if (properties) {
    at = record.writeUInt32BE(properties.length, at)
    at += properties.copy(record, at)
  }
  if (!large) payload.copy(record, at)
  return record
}

/** @throws {DamagedRecord} */
export function decodeEvent(epoch: string, record: Buffer, retained: boolean): StoredEvent {
  const [flags = 0xff] = record
  const qos = flags & 3
  if (record.length < headerLength || flags > 31 || !isQos(qos)) throw new DamagedRecord('not an event')
  const large = (flags & largeFlag) !== 0
  const sequence = record.readDoubleBE(1)
  const topicEnd = headerLength + record.readUInt16BE(17)
  const length = record.readUInt32BE(19)
  const decoded = (flags & (propertiesFlag | expiresFlag)) === 0 ? undefined : decodeExtras(record, flags, topicEnd)
  const end = decoded?.end ?? topicEnd
  if (!Number.isSafeInteger(sequence) || end + (large ? 0 : length) !== record.length) {
    throw new DamagedRecord('an event of another length')
  }
  const topic = record.toString('utf8', headerLength, topicEnd)
  const payload = record.subarray(end)
  const event = { id: formatId(epoch, sequence), sequence, topic, time: record.readDoubleBE(9), payload, qos, retained }
  return { event: decoded ? { ...event, ...decoded.extras } : event, large: large ? length : undefined }
}

/** The expiry and the properties at `at`, of which there is one at least, and where they end. */
function decodeExtras(
  record: Buffer,
  flags: number,
  at: number,
): { readonly extras: Pick<Event, 'expires' | 'properties'>; readonly end: number } {
  const propertiesAt = at + (flags & expiresFlag ? 8 : 0)
  const start = propertiesAt + (flags & propertiesFlag ? 4 : 0)
  if (start > record.length) throw new DamagedRecord('an event of another length')
  const expires = flags & expiresFlag ? { expires: record.readDoubleBE(at) } : undefined
  if (!(flags & propertiesFlag)) return { extras: { ...expires }, end: start }
  const end = start + record.readUInt32BE(propertiesAt)
  return { extras: { ...expires, properties: record.subarray(start, end) }, end }
}

function isQos(value: number): value is QoS {
  return value <= 2
}

export interface ShareState {
  /** Sequence of the newest evicted event; 0 for none. */
  readonly evicted: number
  readonly size: number
  readonly bytes: number
  /** Sequence of the last event of the newest full segment; 0 for none. */
  readonly sealed: number
  /** Number of events after it. */
  readonly tail: number
}

export const emptyShare: ShareState = { evicted: 0, size: 0, bytes: 0, sealed: 0, tail: 0 }

/** Stored state of the journal, which changes with each batch. */
export interface JournalState {
  readonly epoch: string
  readonly head: number
  /** By share. */
  readonly shares: readonly ShareState[]
}

const epochPattern = /^[0-9a-z]{15}$/
const [epochLength, shareLength] = [15, 5 * 8]

export function encodeState({ epoch, head, shares }: JournalState): Buffer {
  const record = Buffer.allocUnsafe(epochLength + 8 + shares.length * shareLength)
  record.write(epoch, 0, 'latin1')
  record.writeDoubleBE(head, epochLength)
  let at = epochLength + 8
  for (const { evicted, size, bytes, sealed, tail } of shares) {
    for (const number of [evicted, size, bytes, sealed, tail]) at = record.writeDoubleBE(number, at)
  }
  return record
}

/** @throws {DamagedRecord} */
export function decodeState(record: Buffer): JournalState {
  const length = record.length - epochLength - 8
  if (length < shareLength || length % shareLength !== 0) throw new DamagedRecord('the state has another length')
  const epoch = record.toString('latin1', 0, epochLength)
  const [head = -1, ...numbers] = doublesOf(record.subarray(epochLength))
  const sound = head >= 0 && numbers.every(number => number >= 0)
  if (!epochPattern.test(epoch) || !sound) throw new DamagedRecord('not a state')
  const shares: ShareState[] = []
  for (let at = 0; at < numbers.length; at += 5) {
    const [evicted = 0, size = 0, bytes = 0, sealed = 0, tail = 0] = numbers.slice(at, at + 5)
    if (Math.max(evicted, sealed) > head || tail > size) throw new DamagedRecord('not the state of a share')
    shares.push({ evicted, size, bytes, sealed, tail })
  }
  return { epoch, head, shares }
}

/** @throws {DamagedRecord} if one is no whole number */
function doublesOf(bytes: Buffer): number[] {
  const numbers = Array.from({ length: bytes.length / 8 }, (_, index) => bytes.readDoubleBE(index * 8))
  if (!numbers.every(Number.isSafeInteger)) throw new DamagedRecord('not a whole number')
  return numbers
}

export function encodeRetainedEntry({ sequence, size, expires }: RetainedEntry): Buffer {
  const record = Buffer.allocUnsafe(expires === undefined ? 16 : 24)
  record.writeDoubleBE(sequence, 0)
  record.writeDoubleBE(size, 8)
  if (expires !== undefined) record.writeDoubleBE(expires, 16)
  return record
}

/** @throws {DamagedRecord} */
export function decodeRetainedEntry(record: Buffer): RetainedEntry {
  if (record.length !== 16 && record.length !== 24) throw new DamagedRecord('a retained entry has another length')
  const [sequence, size] = [record.readDoubleBE(0), record.readDoubleBE(8)]
  if (!Number.isSafeInteger(sequence) || !Number.isSafeInteger(size)) throw new DamagedRecord('not a retained entry')
  return record.length === 16 ? { sequence, size } : { sequence, size, expires: record.readDoubleBE(16) }
}
