import { encodeProperties, type Properties, variableByteInteger } from './properties.js'

/** First bytes of the acknowledgements (MQTT 3.1.1 §3.4 to §3.7). */
const acknowledgementBytes = { puback: 0x40, pubrec: 0x50, pubrel: 0x62, pubcomp: 0x70 } as const

export interface Acknowledging {
  readonly id: number
  /** The reason code of MQTT 5; left out for success, and before MQTT 5. */
  readonly reason?: number | undefined
  readonly text?: string | undefined
}

export function encodeAcknowledgement(
  type: keyof typeof acknowledgementBytes,
  { id, reason, text }: Acknowledging,
): Buffer {
  const first = acknowledgementBytes[type]
  if (reason === undefined || (reason === 0 && text === undefined)) return Buffer.from([first, 2, id >> 8, id & 0xff])
  return packet(first, [Buffer.from([id >> 8, id & 0xff, reason]), ...(text === undefined ? [] : [reasonText(text)])])
}

/** SUBACK (`0x90`) or UNSUBACK (`0xb0`). @param codes reason codes, before MQTT 5 return codes; UNSUBACK has none then */
export function encodeGrants(
  first: 0x90 | 0xb0,
  id: number,
  codes: readonly number[],
  { isVersion5, text }: { readonly isVersion5: boolean; readonly text?: string | undefined },
): Buffer {
  const properties = isVersion5 ? [text === undefined ? withLength(Buffer.alloc(0)) : reasonText(text)] : []
  return packet(first, [Buffer.from([id >> 8, id & 0xff]), ...properties, Buffer.from(codes)])
}

/** A CONNACK of MQTT 5, or with the return code of an earlier version without `properties`. */
export function encodeConnack(isSessionPresent: boolean, code: number, properties?: Properties): Buffer {
  const head = Buffer.from([isSessionPresent ? 1 : 0, code])
  return packet(0x20, properties ? [head, withLength(encodeProperties(properties))] : [head])
}

/** A DISCONNECT of the server, in MQTT 5 (§3.14). @param text its reason string */
export function encodeDisconnect(reason: number, text?: string): Buffer {
  return packet(0xe0, [Buffer.from([reason]), ...(text === undefined ? [] : [reasonText(text)])])
}

/** A DISCONNECT without its reason string where that would exceed the client's maximum packet size [MQTT-3.14.2-3]. */
export function encodeDisconnectWithin(maxSize: number | undefined, reason: number, text: string): Buffer {
  const packet = encodeDisconnect(reason, text)
  return packet.length > (maxSize ?? packet.length) ? encodeDisconnect(reason) : packet
}

function reasonText(reasonString: string): Buffer {
  return withLength(encodeProperties({ reasonString }))
}

function withLength(bytes: Buffer): Buffer {
  return Buffer.concat([variableByteInteger(bytes.length), bytes])
}

function packet(first: number, parts: readonly Buffer[]): Buffer {
  const length = parts.reduce((bytes, part) => bytes + part.length, 0)
  return Buffer.concat([Buffer.from([first]), variableByteInteger(length), ...parts])
}
