import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { topicFilterProblem } from '../../src/config/topic-filters.js'
import { isShallow, topicPredicate } from '../../src/push/topics.js'

/** MQTT 3.1.1 §4.7, word by word and without a thought for time. */
function matches(filter: string, topic: string): boolean {
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  const walk = (wanted: readonly string[], words: readonly string[]): boolean => {
    const [level, ...rest] = wanted
    if (level === undefined) return words.length === 0
    if (level === '#') return true
    return words.length > 0 && (level === '+' || level === words[0]) && walk(rest, words.slice(1))
  }
  return walk(filter.split('/'), topic.split('/'))
}

const levels = (words: string[]) => fc.array(fc.constantFrom(...words), { minLength: 1, maxLength: 4 })
const topic = levels(['', 'a', 'b', 'ab', '$x'])
  .map(words => words.join('/'))
  .filter(text => text !== '')
const filter = levels(['', 'a', 'b', 'ab', '$x', '+', '#'])
  .map(words => words.join('/'))
  .filter(text => topicFilterProblem(text) === undefined)

describe('topic filters', () => {
  it('match by predicate as MQTT says', () => {
    fc.assert(
      fc.property(fc.array(filter, { maxLength: 40 }), topic, (filters, name) => {
        expect(topicPredicate(filters)(name)).toBe(filters.some(each => matches(each, name)))
      }),
      { numRuns: 5000 },
    )
  })

  it('are bounded in depth', () => {
    expect(isShallow('a/'.repeat(99))).toBe(true)
    expect(isShallow('a/'.repeat(100))).toBe(false)
  })
})
