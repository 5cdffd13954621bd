import { topicFilterProblem } from './filter-problems.js'

/** What is wrong with `topic` as the name of a topic to publish to, as it follows its name; if anything is. */
export function topicNameProblem(topic: string): string | undefined {
  if (/[+#]/.test(topic)) return 'must be the name of one topic, without the wildcards + and #' // [MQTT-3.3.2-2]
  if (/^\$SYS(\/|$)/.test(topic)) return 'must not be below $SYS, where brokers speak of themselves'
  if (/^\$share(\/|$)/.test(topic)) return 'must not be below $share, which is for subscriptions' // MQTT 5 §4.8.2
  if (/\p{Cs}/u.test(topic)) return 'must be valid Unicode' // [MQTT-1.5.3-1]
  return topicFilterProblem(topic)
}
