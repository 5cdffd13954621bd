/** A version of MQTT, and its handling of the RETAIN flag. */
export interface ProtocolProfile {
  readonly name: string
  readonly protocolVersion: 4 | 5
  /** Whether to set the highest bit of the protocol version, which identifies bridges. */
  readonly bridgeMode: boolean
  /**
   * Whether messages have RETAIN as published. Otherwise, live messages never have it [MQTT-3.3.1-9].
   */
  readonly retainAsPublished: boolean
}

/** With the subscription option Retain As Published (MQTT 5 §3.8.3.1). */
export const mqtt5: ProtocolProfile = { name: 'MQTT 5', protocolVersion: 5, bridgeMode: false, retainAsPublished: true }

/**
 * mosquitto's convention for bridges, which Aedes and others share: RETAIN as published, and none of the bridge's own messages.
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

/** The profile of the same version in which only retained messages have RETAIN [MQTT-3.3.1-9]. */
export function withoutRetainAsPublished({ protocolVersion }: ProtocolProfile): ProtocolProfile {
  return protocolVersion === 5 ? { ...mqtt5, retainAsPublished: false } : plain
}
