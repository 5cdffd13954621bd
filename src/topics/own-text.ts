/** V8 copies shorter texts when it cuts them out of others; longer ones are references that keep the whole other text in memory. */
const shortest = 13

/** `text` in memory of its own, so that what it was cut out of can go. Its UTF-16 units are kept, whatever they are. */
export function ownText(text: string): string {
  if (text.length < shortest) return text
  // biome-ignore lint/suspicious/noControlCharactersInRegex: this is ASCII
  const encoding = /^[\x00-\x7f]*$/.test(text) ? 'latin1' : 'utf16le'
  return Buffer.from(text, encoding).toString(encoding)
}
