import { isUtf8 } from 'node:buffer'
import { payloadFrame } from '../../delivery/web-socket-frames.js'
import type { Event } from '../../push/event.js'
import type { Encoder } from '../../push/sink.js'

/*
 * An event as the hub brings it to a WebSocket: its sequence, so that a connection knows what it published itself, and the
 * frame that the client gets.
 */

/** Bytes before the frame: the sequence, and the frame's length. */
const headLength = 12

/** One event of what the hub brought. */
export interface SocketRecord {
  readonly sequence: number
  /** Empty for what cannot be sent: bytes that are no text, where only text is. */
  readonly frame: Buffer
}

const encodeText: Encoder = event => record(event, isUtf8(event.payload) ? 'text' : undefined)
const encodeBoth: Encoder = event => record(event, isUtf8(event.payload) ? 'text' : 'binary')

/** The encoder of an endpoint; payloads that are UTF-8 are text. */
export function recordEncoder(binary: boolean): Encoder {
  return binary ? encodeBoth : encodeText
}

function record({ sequence, payload }: Event, kind: 'text' | 'binary' | undefined): Buffer {
  const frame = kind === undefined ? Buffer.alloc(0) : payloadFrame(payload, kind)
  const head = Buffer.allocUnsafe(headLength)
  head.writeBigUInt64BE(BigInt(sequence))
  head.writeUInt32BE(frame.length, 8)
  return Buffer.concat([head, frame])
}

/** Takes apart what `recordEncoder` made of one or several events. */
export function* recordsIn(data: Buffer): Generator<SocketRecord, void, void> {
  for (let at = 0; at < data.length; ) {
    const sequence = Number(data.readBigUInt64BE(at))
    const end = at + headLength + data.readUInt32BE(at + 8)
    yield { sequence, frame: data.subarray(at + headLength, end) }
    at = end
  }
}
