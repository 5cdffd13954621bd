import { MalformedPacket, MqttFields } from '../mqtt/fields.js'
import { readProperties } from '../mqtt/properties.js'

/** First bytes of the packets that may follow CONNECT (MQTT 5 §3.2, §3.15). */
const [connackByte, authByte] = [0x20, 0xf0]

/** Bytes of the broker's first packets; beyond, the client counts as accepted. */
const maxBytes = 64 * 1024

/** The broker's response to a CONNECT. */
export interface ConnackFacts {
  readonly isAccepted: boolean
  /** `undefined` if the broker assigned none. */
  readonly assignedClientId: string | undefined
}

const unknown: ConnackFacts = { isAccepted: true, assignedClientId: undefined }
const refused: ConnackFacts = { isAccepted: false, assignedClientId: undefined }

/** Reads the broker's first packets up to CONNACK. Changes nothing; reads no further packet. */
export class ConnackInspector {
  readonly #readsClientId: boolean
  #buffered: Buffer | undefined

  /** @param readsClientId whether CONNECT was of MQTT 5, and without a client id */
  constructor(readsClientId: boolean) {
    this.#readsClientId = readsClientId
  }

  /** Takes the next bytes, of which it keeps copies. Returns `undefined` while CONNACK is incomplete. */
  push(chunk: Buffer): ConnackFacts | undefined {
    const bytes = this.#buffered ? Buffer.concat([this.#buffered, chunk]) : chunk
    try {
      const facts = this.#read(new MqttFields(bytes))
      if (facts) return facts
    } catch (error) {
      if (!(error instanceof MalformedPacket)) throw error
    }
    if (bytes.length > maxBytes) return unknown
    this.#buffered = bytes === chunk ? Buffer.from(chunk) : bytes
    return undefined
  }

  /** @throws {MalformedPacket} where the bytes end too soon */
  #read(fields: MqttFields): ConnackFacts | undefined {
    for (;;) {
      const first = fields.byte()
      if (first !== connackByte && first !== authByte) return refused
      const packet = fields.part(fields.variableByteInteger())
      if (first === connackByte) return this.#readConnack(packet)
    }
  }

  #readConnack(packet: Buffer): ConnackFacts {
    if (packet.length < 2 || packet[1] !== 0) return refused
    const fields = new MqttFields(packet)
    fields.skip(2)
    return { isAccepted: true, assignedClientId: this.#readsClientId ? assignedClientIdIn(fields) : undefined }
  }
}

function assignedClientIdIn(fields: MqttFields): string | undefined {
  try {
    return readProperties(fields, 'connack')?.assignedClientIdentifier
  } catch (error) {
    if (error instanceof MalformedPacket) return undefined
    throw error
  }
}
