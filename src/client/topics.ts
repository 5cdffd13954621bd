/**
 * Whether a topic filter has a topic (MQTT 3.1.1 §4.7): `+` is any level, `#` all that follow; neither begins a filter of topics
 * that begin with `$` [MQTT-4.7.2-1].
 *
 * @param filter valid
 */
export function matches(filter: string, topic: string): boolean {
  const levels = topic.split('/')
  const wanted = filter.split('/')
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  for (const [index, level] of wanted.entries()) {
    if (level === '#') return true
    if (index >= levels.length || (level !== '+' && level !== levels[index])) return false
  }
  return wanted.length === levels.length
}
