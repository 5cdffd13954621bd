/** A form of MQTT, and how a message tells in it that it was published with RETAIN. */
export interface ProtocolProfile {
  readonly name: string
  readonly protocolVersion: 4 | 5
  /** The highest bit of the protocol version, by which bridges say what they are. */
  readonly bridgeMode: boolean
  /**
   * Whether RETAIN comes as it was published. Otherwise it says on live messages that they are news, whatever they were
   * published with [MQTT-3.3.1-9].
   */
  readonly retainAsPublished: boolean
}

/** MQTT 5 asks for it with each subscription (§3.8.3.1). */
export const mqtt5: ProtocolProfile = { name: 'MQTT 5', protocolVersion: 5, bridgeMode: false, retainAsPublished: true }

/**
 * A convention of mosquitto, which Aedes and others have: bridges get RETAIN as it was published, and never what they
 * published themselves.
 */
export const bridge: ProtocolProfile = {
  name: 'MQTT 3.1.1 as a bridge',
  protocolVersion: 4,
  bridgeMode: true,
  retainAsPublished: true,
}

export const plain: ProtocolProfile = {
  name: 'MQTT 3.1.1',
  protocolVersion: 4,
  bridgeMode: false,
  retainAsPublished: false,
}

/** The form of the same version in which RETAIN says of a message that it is state, and nothing else [MQTT-3.3.1-9]. */
export function tellingState({ protocolVersion }: ProtocolProfile): ProtocolProfile {
  return protocolVersion === 5 ? { ...mqtt5, retainAsPublished: false } : plain
}
