/** Ends of lines for Unicode, and so for some clients (`splitlines` of Python), which JSON may have as they are: U+0085, U+2028, U+2029. */
const lineEnds = /[\u0085\u2028\u2029]/g

/** The same JSON with these characters escaped, for streams that are read line by line. */
export function escapeLineEnds(json: string): string {
  return json.replaceAll(lineEnds, end => `\\u${end.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** As `JSON.stringify`, on one line whatever a client takes for the end of one. */
export function oneLineJson(value: object | string): string {
  return escapeLineEnds(JSON.stringify(value))
}
