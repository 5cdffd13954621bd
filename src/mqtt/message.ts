/** How surely MQTT delivers a message (MQTT 3.1.1 §4.3). */
export type QoS = 0 | 1 | 2

/** What is published: a message that has no place in the order of things yet. */
export interface Message {
  /** A topic name: without wildcards, and without U+0000 [MQTT-3.3.2-2], [MQTT-4.7.3-2]. At most 65,535 bytes. */
  readonly topic: string
  readonly payload: Buffer
  readonly qos: QoS
  /** Whether it becomes its topic's retained message; without a payload, it removes that [MQTT-3.3.1-10]. */
  readonly retain: boolean
}
