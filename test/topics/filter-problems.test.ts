import { describe, expect, test } from 'vitest'
import { parseRuleFilter, ruleFilterProblem, topicFilterProblem } from '../../src/topics/filter-problems.js'

describe('a topic filter', () => {
  test.each(['a', '/', '//', '#', '+', 'a/#', '+/a', '/a/+/', 'a b/ä', '$SYS/#', 'x'.repeat(65_535)])(
    'is %.20s',
    filter => expect(topicFilterProblem(filter)).toBeUndefined(),
  )

  test.each([
    ['', /empty/],
    ['a\0', /U\+0000/],
    ['a+', /alone/],
    ['a/+b/c', /alone/],
    ['a#', /alone/],
    ['#/a', /last level only/],
    ['news/#/x', /last level only/],
    ['ä'.repeat(32_768), /65535 bytes/],
  ])('is not %.20s', (filter, problem) => expect(topicFilterProblem(filter)).toMatch(problem))
})

describe('the filter of a rule', () => {
  test('may have places for who it is', () => {
    expect(parseRuleFilter('a/%u/%c%%u')).toEqual([
      { text: 'a/' },
      { placeholder: 'user' },
      { text: '/' },
      { placeholder: 'client' },
      { text: '%' },
      { text: 'u' },
    ])
    expect(ruleFilterProblem('%u/#')).toBeUndefined()
  })

  test.each([['a/%x'], ['100%'], ['%U'], ['%\n']])('may have no other: %j', filter => {
    expect(parseRuleFilter(filter)).toBeUndefined()
    expect(ruleFilterProblem(filter)).toMatch(/no other placeholders/)
  })

  test.each(['%u+', '#%c', '+%u'])('is a topic filter when they are filled in, which %s is not', filter => {
    expect(ruleFilterProblem(filter)).toMatch(/alone/)
  })

  test.each(['$share/g/a', '$share'])('is no shared subscription: %s', filter => {
    expect(ruleFilterProblem(filter)).toMatch(/shared/)
  })
})
