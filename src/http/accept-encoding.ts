/** One element of Accept-Encoding (RFC 9110 §12.5.3). */
const element = /^[\t ]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[\t ]*(?:;[\t ]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[\t ]*)?$/i

/**
 * The content codings that a client accepts, of those `offered`: the ones with the highest weight first, and of equal ones in the order of `offered`.
 * Empty without the header; an element that is not valid is ignored.
 */
export function acceptedOf<Name extends string>(header: string | undefined, offered: readonly Name[]): Name[] {
  if (header === undefined || header === '') return []
  const weights = new Map<string, number>()
  for (const part of header.split(',')) {
    const [, name, weight = '1'] = element.exec(part) ?? []
    // RFC 9110 §8.4.1.3: x-gzip is gzip.
    if (name !== undefined) weights.set(name.toLowerCase().replace(/^x-gzip$/, 'gzip'), Number(weight))
  }
  const weightOf = (name: string): number => weights.get(name) ?? weights.get('*') ?? 0
  return offered.filter(name => weightOf(name) > 0).toSorted((a, b) => weightOf(b) - weightOf(a))
}
