/** V8 copies shorter substrings; longer ones reference the string that they were cut from, and keep all of it in memory. */
const minReferenced = 13

/** Copies a substring, so that the string that it was cut from can be collected. Single surrogates are kept. */
export function copyString(text: string): string {
  if (text.length < minReferenced) return text
  // biome-ignore lint/suspicious/noControlCharactersInRegex: this is ASCII
  const encoding = /^[\x00-\x7f]*$/.test(text) ? 'latin1' : 'utf16le'
  return Buffer.from(text, encoding).toString(encoding)
}
