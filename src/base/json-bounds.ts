/** Nesting depth of arrays and objects, as parsers use recursion. */
export const maxJsonLevels = 100

/** Members and elements of a payload that is parsed. */
export const maxPayloadValues = 50_000

/** The bound that a JSON text exceeds. */
export type ExceededJsonBound = 'levels' | 'values'

const [quote, comma, colon, backslash, openList, closeList, openObject, closeObject] = [
  0x22, 0x2c, 0x3a, 0x5c, 0x5b, 0x5d, 0x7b, 0x7d,
]

/**
 * Scans a JSON text before it is parsed: parsing takes up to 80 times as long for nested arrays, or objects with different names. The
 * result for a text that is no JSON is undefined.
 *
 * @param maxValues bound of commas, colons and opening brackets outside of strings: at least the number of values
 */
export function exceededJsonBound(text: string, maxValues: number): ExceededJsonBound | undefined {
  const { length } = text
  let [levels, values] = [0, 0]
  let isInString = false
  for (let at = 0; at < length; at++) {
    const code = text.charCodeAt(at)
    if (isInString) {
      if (code === backslash) at++
      else if (code === quote) isInString = false
    } else if (code === quote) {
      isInString = true
    } else if (code === comma || code === colon) {
      values++
    } else if (code === openList || code === openObject) {
      values++
      if (++levels > maxJsonLevels) return 'levels'
    } else if (code === closeList || code === closeObject) {
      levels--
    }
    if (values > maxValues) return 'values'
  }
  return undefined
}

/**
 * Parses a JSON payload, within bounds.
 *
 * @throws {SyntaxError} if it is no JSON
 * @throws {RangeError} if it exceeds `maxJsonLevels` or `maxPayloadValues`
 */
export function parsePayload(text: string): unknown {
  const exceeded = exceededJsonBound(text, maxPayloadValues)
  if (exceeded) throw new RangeError(`The payload has too many ${exceeded}`)
  return JSON.parse(text)
}
