const nonCharacter = /[\p{Cs}\p{Noncharacter_Code_Point}]/u

/**
 * Whether `text` has what a topic, a filter, a client id or a user name must not have, or what brokers and clients may end their
 * connection for (MQTT 3.1.1 §1.5.3; mosquitto does): U+0000 [MQTT-1.5.3-2], control characters, single surrogates [MQTT-1.5.3-1] and
 * what Unicode has for no character. Asked for each message that comes in: nothing is allocated.
 */
export function hasForbiddenCharacter(text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code >= 0x20 && code < 0x7f) continue
    if (code <= 0x9f) return true
    if (code >= 0xd800) return nonCharacter.test(text) || hasControl(text, at)
  }
  return false
}

function hasControl(text: string, from: number): boolean {
  for (let at = from; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) return true
  }
  return false
}
