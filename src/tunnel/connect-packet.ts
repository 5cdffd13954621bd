import { MalformedPacket, MqttFields } from '../mqtt/fields.js'

/*
 * MQTT's CONNECT, of any version, as far as it tells who connects. `mqtt-packet` could read it as well, with
 * a stream and an event emitter for each: 8 % of what a new connection costs.
 */

/** What an MQTT CONNECT tells about who connects, as far as it could be read. Never the password, never the will. */
export interface ConnectFacts {
  clientId: string | undefined
  /** 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5; whether the broker speaks another one is for it to say. */
  protocolVersion: number | undefined
  username: string | undefined
}

/** What a bridge between brokers adds to its version (mosquitto's `try_private`). */
const bridgeBit = 0x80

/** The connect flags (MQTT 3.1.1 §3.1.2.3). */
const willFlag = 0x04
const usernameFlag = 0x80

/**
 * Reads a CONNECT without its fixed header, up to where no broker could go on. It judges nothing: that is the broker's to do, and to
 * answer. Never throws.
 */
export function readConnect(body: Buffer): ConnectFacts {
  const facts: ConnectFacts = { clientId: undefined, protocolVersion: undefined, username: undefined }
  try {
    readInto(facts, new MqttFields(body))
  } catch (error) {
    if (!(error instanceof MalformedPacket)) throw error
  }
  return facts
}

function readInto(facts: ConnectFacts, fields: MqttFields): void {
  fields.binary() // the protocol's name
  const protocolVersion = fields.byte() & ~bridgeBit
  facts.protocolVersion = protocolVersion
  const flags = fields.byte()
  fields.integer() // keep-alive
  const hasProperties = protocolVersion === 5
  if (hasProperties) fields.skip(fields.variableByteInteger())
  facts.clientId = fields.binary().toString()
  if ((flags & willFlag) !== 0) {
    if (hasProperties) fields.skip(fields.variableByteInteger())
    fields.binary() // the topic
    fields.binary() // the payload
  }
  if ((flags & usernameFlag) !== 0) facts.username = fields.binary().toString()
}
