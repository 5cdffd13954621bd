/**
 * Begin of the topics on which responses to requests over HTTP arrive. With `$`, no filter that begins with a wildcard matches them
 * [MQTT-4.7.2-1].
 */
export const responsePrefix = '$mqway/response/'

/** Whether responses are published on `topic`: everybody may, as only who got the request knows its topic. */
export function isResponseTopic(topic: string): boolean {
  return topic.startsWith(responsePrefix)
}

/** Whether a topic filter, shared or not, may match topics of responses: nobody may subscribe to them. */
export function mayMatchResponses(filter: string): boolean {
  return filter.startsWith('$') && /^(?:\$share\/[^/]*\/)?\$mqway(?:\/|$)/.test(filter)
}
