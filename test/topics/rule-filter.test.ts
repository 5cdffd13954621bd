import { describe, expect, test } from 'vitest'
import { parseRuleFilter, ruleFilterProblem } from '../../src/topics/rule-filter.js'

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
