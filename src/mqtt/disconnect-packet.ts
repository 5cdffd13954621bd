import { encodeProperties, variableByteInteger } from './properties.js'

/** A DISCONNECT of the server, in MQTT 5 (§3.14). @param text its reason string */
export function encodeDisconnect(reason: number, text?: string): Buffer {
  const properties = text === undefined ? [] : withLength(encodeProperties({ reasonString: text }))
  return Buffer.concat([Buffer.from([0xe0]), ...withLength(Buffer.concat([Buffer.from([reason]), ...properties]))])
}

/** A DISCONNECT without its reason string where that would exceed the client's maximum packet size [MQTT-3.14.2-3]. */
export function encodeDisconnectWithin(maxSize: number | undefined, reason: number, text: string): Buffer {
  const packet = encodeDisconnect(reason, text)
  return packet.length > (maxSize ?? packet.length) ? encodeDisconnect(reason) : packet
}

function withLength(bytes: Buffer): [Buffer, Buffer] {
  return [variableByteInteger(bytes.length), bytes]
}
