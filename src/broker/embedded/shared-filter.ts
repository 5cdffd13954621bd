/** A shared subscription (MQTT 5 §4.8.2): `$share/<group>/<filter>`. */
export interface SharedFilter {
  readonly group: string
  readonly filter: string
}

const prefix = '$share/'

export function isShared(filter: string): boolean {
  return filter.startsWith(prefix) || filter === '$share'
}

/** Parses a shared subscription; `undefined` where its group or its filter is missing [MQTT-4.8.2-1], [MQTT-4.8.2-2]. */
export function parseShared(topicFilter: string): SharedFilter | undefined {
  const end = topicFilter.indexOf('/', prefix.length)
  if (!topicFilter.startsWith(prefix) || end <= prefix.length || end === topicFilter.length - 1) return undefined
  const group = topicFilter.slice(prefix.length, end)
  return /[+#]/.test(group) ? undefined : { group, filter: topicFilter.slice(end + 1) }
}

/** The filter of a subscription, shared or not. */
export function withoutGroup(topicFilter: string): string {
  return parseShared(topicFilter)?.filter ?? topicFilter
}
