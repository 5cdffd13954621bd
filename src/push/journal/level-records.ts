import { type Event, formatId, type QoS } from '../event.js'

/*
 * What the journal writes in LevelDB. A key is one letter for the kind, and then a number of eight bytes, the highest
 * first, or a topic: so that keys sort as sequences do.
 *
 *   e <sequence>  an event, with its payload unless that is large
 *   p <sequence>  a large payload
 *   t <segment>   the topics of a segment (see level-segment.ts)
 *   m <segment>   the sizes and times of its events
 *   r <topic>     a topic's retained message, with its payload unless that is large
 *   q <topic>     its large payload
 *   n <topic>     its sequence and size
 *   s             the state: epoch, bounds, bytes
 *   o             by whom it was opened last, and whether that ended well
 */

/** What is read is not what was written. */
export class DamagedRecord extends Error {
  override readonly name = 'DamagedRecord'
}

/** Payloads of more bytes are beside their events, so that those can be read one after the other without them. */
export const largePayload = 16 * 1024

export const stateKey = Buffer.from('s')
export const openedKey = Buffer.from('o')

/** The key of an event (`e`), a payload (`p`) or a segment (`t`, `m`). */
export function numberKey(kind: 'e' | 'p' | 't' | 'm', number: number): Buffer {
  const key = Buffer.allocUnsafe(9)
  key.write(kind, 0, 'latin1')
  // Without a BigInt: this is called for each event.
  key.writeUInt32BE(Math.floor(number / 2 ** 32), 1)
  key.writeUInt32BE(number % 2 ** 32, 5)
  return key
}

export function readNumberKey(key: Buffer): number {
  return Number(key.readBigUInt64BE(1))
}

export function topicKey(kind: 'r' | 'q' | 'n', topic: string): Buffer {
  return Buffer.from(kind + topic)
}

export function readTopicKey(key: Buffer): string {
  return key.toString('utf8', 1)
}

const headerLength = 1 + 8 + 8 + 2 + 4
const largeFlag = 4

/** An event as it is read: a large payload has yet to be. */
export interface StoredEvent {
  readonly event: Event
  /** The length of the payload that is beside it, or `undefined`. */
  readonly large: number | undefined
}

/** Flags, sequence, time, length of topic and payload; the topic; the payload unless it is large. */
export function encodeEvent({ sequence, topic, time, payload, qos }: Event): Buffer {
  const large = payload.length > largePayload
  const topicLength = Buffer.byteLength(topic)
  const record = Buffer.allocUnsafe(headerLength + topicLength + (large ? 0 : payload.length))
  record.writeUInt8(qos | (large ? largeFlag : 0), 0)
  record.writeDoubleBE(sequence, 1)
  record.writeDoubleBE(time, 9)
  record.writeUInt16BE(topicLength, 17)
  record.writeUInt32BE(payload.length, 19)
  record.write(topic, headerLength)
  if (!large) payload.copy(record, headerLength + topicLength)
  return record
}

/** @throws {DamagedRecord} */
export function decodeEvent(epoch: string, record: Buffer, retained: boolean): StoredEvent {
  const [flags = 0xff] = record
  const qos = flags & 3
  if (record.length < headerLength || flags > 7 || !isQos(qos)) throw new DamagedRecord('not an event')
  const large = (flags & largeFlag) !== 0
  const sequence = record.readDoubleBE(1)
  const topicEnd = headerLength + record.readUInt16BE(17)
  const length = record.readUInt32BE(19)
  if (!Number.isSafeInteger(sequence) || topicEnd + (large ? 0 : length) !== record.length) {
    throw new DamagedRecord('an event of another length')
  }
  const topic = record.toString('utf8', headerLength, topicEnd)
  const payload = record.subarray(topicEnd)
  const event = { id: formatId(epoch, sequence), sequence, topic, time: record.readDoubleBE(9), payload, qos, retained }
  return { event, large: large ? length : undefined }
}

function isQos(value: number): value is QoS {
  return value <= 2
}

/** What the journal knows of itself; changed with each batch. */
export interface JournalState {
  readonly epoch: string
  readonly first: number
  readonly head: number
  /** Of the events from `first` to `head`, as `sizeOf` has it. */
  readonly bytes: number
}

const stateForm = /^[0-9a-z]{15}$/

export function encodeState({ epoch, first, head, bytes }: JournalState): Buffer {
  const record = Buffer.allocUnsafe(15 + 3 * 8)
  record.write(epoch, 0, 'latin1')
  record.writeDoubleBE(first, 15)
  record.writeDoubleBE(head, 23)
  record.writeDoubleBE(bytes, 31)
  return record
}

/** @throws {DamagedRecord} */
export function decodeState(record: Buffer): JournalState {
  if (record.length !== 15 + 3 * 8) throw new DamagedRecord('the state has another length')
  const epoch = record.toString('latin1', 0, 15)
  const [first, head, bytes] = [record.readDoubleBE(15), record.readDoubleBE(23), record.readDoubleBE(31)]
  const whole = [first, head, bytes].every(Number.isSafeInteger)
  if (!stateForm.test(epoch) || !whole || first < 1 || head < first - 1) throw new DamagedRecord('not a state')
  return { epoch, first, head, bytes }
}

export function encodeRetainedEntry(sequence: number, size: number): Buffer {
  const record = Buffer.allocUnsafe(16)
  record.writeDoubleBE(sequence, 0)
  record.writeDoubleBE(size, 8)
  return record
}

/** @throws {DamagedRecord} */
export function decodeRetainedEntry(record: Buffer): { sequence: number; size: number } {
  if (record.length !== 16) throw new DamagedRecord('a retained entry has another length')
  const [sequence, size] = [record.readDoubleBE(0), record.readDoubleBE(8)]
  if (!Number.isSafeInteger(sequence) || !Number.isSafeInteger(size)) throw new DamagedRecord('not a retained entry')
  return { sequence, size }
}
