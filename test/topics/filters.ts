import fc from 'fast-check'
import { topicFilterProblem } from '../../src/topics/topic-syntax.js'

/** MQTT 3.1.1 §4.7, word by word and without a thought for time. */
export function naiveMatch(filter: string, topic: string): boolean {
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  const walk = (wanted: readonly string[], words: readonly string[]): boolean => {
    const [level, ...rest] = wanted
    if (level === undefined) return words.length === 0
    if (level === '#') return true
    return words.length > 0 && (level === '+' || level === words[0]) && walk(rest, words.slice(1))
  }
  return walk(filter.split('/'), topic.split('/'))
}

const long = 'a level of more than twelve characters'
const levels = (words: string[], maxLength: number) =>
  fc.array(fc.constantFrom(...words), { minLength: 1, maxLength }).map(parts => parts.join('/'))

/** Topics that some of `filters` match. */
export const topics = levels(['', 'a', 'b', 'ab', '$x', long, '\ud800é'], 6).filter(text => text !== '')

/** Valid filters. */
export const filters = levels(['', 'a', 'a', 'b', 'ab', '$x', long, '\ud800é', '+', '+', '#'], 6).filter(
  text => topicFilterProblem(text) === undefined,
)
