import { MalformedPacket, MqttFields } from '../mqtt/fields.js'

/*
 * Not `mqtt-packet`, which has a stream and an event emitter for each parser: 8 % of the cost of a new connection.
 */

/** The client in an MQTT CONNECT, as far as it could be read. Never the password, never the will. */
export interface ConnectFacts {
  clientId: string | undefined
  /** 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5; the broker may refuse it. */
  protocolVersion: number | undefined
  username: string | undefined
}

/** Added to its version by a bridge between brokers (mosquitto's `try_private`). */
const bridgeBit = 0x80

/** The connect flags (MQTT 3.1.1 §3.1.2.3). */
const willFlag = 0x04
const usernameFlag = 0x80

/**
 * Reads a CONNECT without its fixed header, up to the first malformed field. The broker checks and answers it. Never throws.
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
