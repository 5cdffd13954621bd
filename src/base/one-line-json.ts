/** Unicode line ends that JSON does not escape, and that some clients split lines at (Python's `splitlines`). */
const lineEnds = /[\u0085\u2028\u2029]/g

/** Escapes these characters in JSON, for streams that are read line by line. */
export function escapeLineEnds(json: string): string {
  return json.replaceAll(lineEnds, end => `\\u${end.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** `JSON.stringify` with all Unicode line ends escaped. */
export function oneLineJson(value: object | string): string {
  return escapeLineEnds(JSON.stringify(value))
}
