import { isUtf8 } from 'node:buffer'
import type { Encoder } from '../../hub/event-sink.js'
import type { Event } from '../../journal/event.js'
import { encodeFrame } from '../../websocket/frame-writer.js'

/*
 * The hub's encoding of an event for WebSockets: the topic, by which a connection recognizes its own messages, and the frame
 * for the client.
 */

/** Bytes before the topic: the lengths of the topic, of the frame, and of the frame's header. */
const headLength = 7

export interface SocketRecord {
  readonly topic: string
  /** Empty for a payload that cannot be sent: not UTF-8, where only text frames are sent. */
  readonly frame: Buffer
  /** The payload in the frame. */
  readonly payload: Buffer
}

const encodeText: Encoder = event => record(event, isUtf8(event.payload) ? 'text' : undefined)
const encodeBoth: Encoder = event => record(event, isUtf8(event.payload) ? 'text' : 'binary')

/** The encoder of an endpoint; payloads that are UTF-8 are text. */
export function recordEncoder(binary: boolean): Encoder {
  return binary ? encodeBoth : encodeText
}

function record({ topic: name, payload }: Event, kind: 'text' | 'binary' | undefined): Buffer {
  const topic = Buffer.from(name)
  const frame = kind === undefined ? Buffer.alloc(0) : encodeFrame(kind, payload)
  const head = Buffer.allocUnsafe(headLength)
  head.writeUInt16BE(topic.length)
  head.writeUInt32BE(frame.length, 2)
  head.writeUInt8(kind === undefined ? 0 : frame.length - payload.length, 6)
  return Buffer.concat([head, topic, frame])
}

/** Decodes the output of `recordEncoder` for one or several events. */
export function* recordsIn(data: Buffer): Generator<SocketRecord, void, void> {
  for (let at = 0; at < data.length; ) {
    const topicAt = at + headLength
    const frameAt = topicAt + data.readUInt16BE(at)
    const end = frameAt + data.readUInt32BE(at + 2)
    const payload = data.subarray(frameAt + data.readUInt8(at + 6), end)
    yield { topic: data.toString('utf8', topicAt, frameAt), frame: data.subarray(frameAt, end), payload }
    at = end
  }
}
