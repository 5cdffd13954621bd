import { formatTime } from './format.js'
import { type Entry, oneLine } from './rules.js'

/**
 * Composes one mail of the collected entries.
 *
 * @param more number of further events, without their content
 */
export function composeMail(
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
    ({ time, topic, subject: title, text }) =>
      `${formatTime(time)}  ${oneLine(topic === '' ? title : topic)}\n\n${text}\n`,
  )
  if (more > 0) parts.push(`${more} more ${more === 1 ? 'is' : 'are'} not shown.\n`)
  return { subject, text: parts.join(`\n${'-'.repeat(60)}\n\n`) }
}
