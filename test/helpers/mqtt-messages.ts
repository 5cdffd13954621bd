import type { MqttClient } from 'mqtt'

/** A message as a client of MQTT.js got it. */
export interface ReceivedMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: number
  readonly retain: boolean
}

/** The next message that `client` gets. Ask before anything that could make it arrive. */
export function nextMessage(client: MqttClient): Promise<ReceivedMessage> {
  return new Promise(resolve => {
    client.once('message', (topic, payload, { qos, retain }) => resolve({ topic, payload, qos, retain }))
  })
}
