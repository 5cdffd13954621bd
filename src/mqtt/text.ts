/**
 * Whether bytes are a text of UTF-8 (§1.5.4) without the characters that `hasForbiddenCharacter` names. Called for each text that is passed on
 * unread, of which a packet may have thousands: allocates nothing.
 */
export function isText(bytes: Buffer, start: number, end: number): boolean {
  let at = start
  while (at < end) {
    const first = bytes[at++] as number
    if (first < 0x80) {
      if (first < 0x20 || first === 0x7f) return false
      continue
    }
    // RFC 3629 §4: a first byte says how many follow.
    if (first < 0xc2 || first > 0xf4) return false
    const following = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3
    if (at + following > end) return false
    let code = first & (0x3f >> following)
    for (let left = following; left > 0; left--) {
      const byte = bytes[at++] as number
      if (byte >> 6 !== 0b10) return false
      code = (code << 6) | (byte & 0x3f)
    }
    if (code < (smallest[following] ?? 0) || code > 0x10_ffff || isForbidden(code)) return false
  }
  return true
}

/** The smallest characters by the number of following bytes. */
const smallest = [0, 0x80, 0x800, 0x1_0000]

/** A control character, a surrogate, or a noncharacter of Unicode. */
function isForbidden(code: number): boolean {
  return (
    code <= 0x9f ||
    (code >= 0xd800 && code <= 0xdfff) ||
    (code >= 0xfdd0 && code <= 0xfdef) ||
    (code & 0xfffe) === 0xfffe
  )
}
