import { whenOf } from './format.js'
import { type Entry, oneLine } from './rules.js'

/**
 * What a mail says of what was collected.
 *
 * @param more how many there were besides, of which nothing but their number is known
 */
export function letterOf(
  entries: readonly Entry[],
  more: number,
  prefix: string | undefined,
): { readonly subject: string; readonly text: string } {
  const [first] = entries
  const all = entries.length + more
  const head = `${prefix === undefined ? '' : `${prefix}: `}${first?.subject ?? `${more} events`}`
  const subject = oneLine(all > 1 && first ? `${head} (and ${all - 1} more)` : head)
  if (first && all === 1) return { subject, text: `${first.text}\n` }
  const parts = entries.map(
    ({ time, topic, subject: title, text }) => `${whenOf(time)}  ${oneLine(topic === '' ? title : topic)}\n\n${text}\n`,
  )
  if (more > 0) parts.push(`${more} more ${more === 1 ? 'is' : 'are'} not shown.\n`)
  return { subject, text: parts.join(`\n${'-'.repeat(60)}\n\n`) }
}
