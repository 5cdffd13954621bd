import type { MqttClient } from 'mqtt'

/** A message as received by a client of MQTT.js. */
export interface ReceivedMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: number
  readonly retain: boolean
}

/** Resolves to the next message of `client`. Call it before the message is published. */
export function nextMessage(client: MqttClient): Promise<ReceivedMessage> {
  return new Promise(resolve => {
    client.once('message', (topic, payload, { qos, retain }) => resolve({ topic, payload, qos, retain }))
  })
}
