/** Whether a valid filter matches a topic (MQTT 3.1.1 §4.7), for a few of them; for many there is `FilterIndex`. Allocates nothing. */
export function filterMatches(filter: string, topic: string): boolean {
  const isSystem = topic.charCodeAt(0) === dollar
  if (isSystem && (filter.charCodeAt(0) === plus || filter.charCodeAt(0) === hash)) return false // [MQTT-4.7.2-1]
  let [at, within] = [0, 0]
  for (;;) {
    const code = filter.charCodeAt(at)
    if (code === hash) return true
    if (code === plus) {
      const next = topic.indexOf('/', within)
      within = next === -1 ? topic.length : next
      at++
    } else {
      while (
        at < filter.length &&
        filter.charCodeAt(at) !== slash &&
        filter.charCodeAt(at) === topic.charCodeAt(within)
      ) {
        at++
        within++
      }
    }
    const [ended, topicEnded] = [at === filter.length, within === topic.length]
    if (ended) return topicEnded
    if (filter.charCodeAt(at) !== slash) return false
    // `#` takes the parent level, too.
    if (topicEnded) return at === filter.length - 2 && filter.charCodeAt(at + 1) === hash
    if (topic.charCodeAt(within) !== slash) return false
    at++
    within++
  }
}

const [dollar, hash, plus, slash] = [36, 35, 43, 47]
