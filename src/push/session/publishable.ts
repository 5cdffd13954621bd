/** A length of two bytes is before each string (MQTT 3.1.1 §1.5.3). */
const maxBytes = 65_535

/** Whether a message may be published to `topic`: a topic name that is not the broker's own. */
export function isPublishable(topic: string): boolean {
  // [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-1.5.3-1]
  if (topic === '' || /[+#\0]|\p{Cs}/u.test(topic) || Buffer.byteLength(topic) > maxBytes) return false
  // §4.7.2: topics that begin with $ are what brokers make of them.
  return !/^\$(SYS|share)(\/|$)/.test(topic)
}
