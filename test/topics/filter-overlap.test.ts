import fc from 'fast-check'
import { expect, test } from 'vitest'
import { filtersOverlap } from '../../src/topics/filter-overlap.js'
import { topicFilterProblem } from '../../src/topics/filter-problems.js'
import { topicPredicate } from '../../src/topics/topic-predicate.js'

const names = ['', 'a', 'b', '$c']

/** All topics of up to four of these names: one more level than the filters have. */
const topics = [1, 2, 3, 4]
  .flatMap(levels => {
    let all = ['']
    for (let level = 0; level < levels; level++) {
      all = all.flatMap(before => names.map(name => (level === 0 ? name : `${before}/${name}`)))
    }
    return all
  })
  .filter(topic => topic !== '')

const filter = fc
  .array(fc.constantFrom(...names, '+', '#'), { minLength: 1, maxLength: 3 })
  .map(levels => levels.join('/'))
  .filter(text => topicFilterProblem(text) === undefined)

test('two filters overlap where a topic matches both, and nowhere else', () => {
  fc.assert(
    fc.property(filter, filter, (one, other) => {
      const [matchesOne, matchesOther] = [topicPredicate([one]), topicPredicate([other])]
      const both = topics.some(topic => matchesOne(topic) && matchesOther(topic))
      expect(filtersOverlap(one, other)).toBe(both)
      expect(filtersOverlap(other, one)).toBe(both)
    }),
    { numRuns: 5000 },
  )
})

test.each([
  ['supervisor/#', 'supervisor', true],
  ['#', '$SYS/#', false],
  ['+/+/EXITED', 'supervisor/web1/#', true],
  ['a/+', 'a/b/c', false],
  ['a/b/#', 'a', false],
])('%s and %s: %s', (one, other, overlap) => {
  expect(filtersOverlap(one, other)).toBe(overlap)
})
