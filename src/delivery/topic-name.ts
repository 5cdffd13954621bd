import { topicFilterProblem } from '../config/topic-filters.js'

/** What is wrong with `topic` as the name of a topic to publish to, as it follows its name; if anything is. */
export function topicNameProblem(topic: string): string | undefined {
  if (/[+#]/.test(topic)) return 'must be the name of one topic, without the wildcards + and #' // [MQTT-3.3.2-2]
  if (/^\$SYS(\/|$)/.test(topic)) return 'must not be below $SYS, where brokers speak of themselves'
  if (/\p{Cs}/u.test(topic)) return 'must be valid Unicode' // [MQTT-1.5.3-1]
  return topicFilterProblem(topic)
}
