import { escapeRegex, hasAlternatives, literalOf, translatePcre } from './patterns.js'

/** The comparisons of the language. */
export const comparisons = ['==', '!=', '=~', '!~', '=^', '=$'] as const

/** A comparison of a condition; `!^` and `!$` come from an `else` after `=^` and `=$`. */
type Operator = (typeof comparisons)[number] | '!^' | '!$'

/** One condition that is true or false for a request. */
export interface Test {
  /** `$HTTP["url"]` */
  readonly subject: string
  readonly operator: Operator
  readonly value: string
}

const opposites: Readonly<Record<Operator, Operator>> = {
  '==': '!=',
  '!=': '==',
  '=~': '!~',
  '!~': '=~',
  '=^': '!^',
  '!^': '=^',
  '=$': '!$',
  '!$': '=$',
}

/** The condition of an `else` after a block with the condition `test`. */
export function negated(test: Test): Test {
  return { ...test, operator: opposites[test.operator] }
}

/**
 * Simplifies a regular expression that is an anchored literal: `=~ "^/mqtt"` is `=^ "/mqtt"`. Hosts stay unchanged, because a regular
 * expression sees their port, and `==` does not.
 */
export function simplified(test: Test): Test {
  if (test.subject === '$HTTP["host"]') return test
  if (!test.operator.endsWith('~') || !test.value.startsWith('^')) return test
  const not = isNegative(test)
  const isWhole = /[^\\]\$$/.test(test.value)
  const literal = literalOf(test.value.slice(1, isWhole ? -1 : undefined))
  if (literal === undefined) return test
  return { ...test, operator: isWhole ? (not ? '!=' : '==') : not ? '!^' : '=^', value: literal }
}

/** Formats conditions for messages. */
export function conditionText(tests: readonly Test[]): string {
  return tests.map(({ subject, operator, value }) => `${subject} ${operator} ${JSON.stringify(value)}`).join(' and ')
}

/** Whether the comparison is negated. */
export function isNegative({ operator }: Test): boolean {
  return operator.startsWith('!')
}

/**
 * The source of a JavaScript regular expression (`u` flag) that is equivalent to the comparison without its negation.
 *
 * @returns `undefined` if JavaScript has no such expression
 */
function positiveSource({ operator, value }: Test): string | undefined {
  switch (operator.slice(1)) {
    case '=':
      return `^${escapeRegex(value)}$`
    case '^':
      return `^${escapeRegex(value)}`
    case '$':
      return `${escapeRegex(value)}$`
    default:
      return translatePcre(value)
  }
}

/** Whether a text passes the comparison; `undefined` if JavaScript has no such expression. */
export function passes(test: Test, text: string): boolean | undefined {
  const source = positiveSource(test)
  return source === undefined ? undefined : new RegExp(source, 'u').test(text) !== isNegative(test)
}

/**
 * The source of one regular expression that is equivalent to all of `tests` together.
 *
 * @returns `undefined` if JavaScript has no such expression
 */
export function conjunction(tests: readonly Test[]): string | undefined {
  const distinct = withoutRepeats(tests)
  const [only] = distinct
  if (distinct.length === 1 && only && !isNegative(only)) return positiveSource(only)
  const parts = distinct.map(test => {
    const source = positiveSource(test)
    if (source === undefined) return undefined
    const isAnchored = source.startsWith('^') && !hasAlternatives(source)
    return `(?${isNegative(test) ? '!' : '='}${isAnchored ? source.slice(1) : `[^]*(?:${source})`})`
  })
  return parts.includes(undefined) ? undefined : `^${parts.join('')}`
}

/** Whether a condition holds, given the facts about a request. */
export type Verdict = 'always' | 'never' | 'sometimes'

/** Whether `tests` hold for a request for which all `facts` hold. */
export function verdictOf(tests: readonly Test[], facts: readonly Test[]): Verdict {
  const verdicts = tests.map(test => verdictOfOne(test, facts))
  if (verdicts.includes('never')) return 'never'
  return verdicts.includes('sometimes') ? 'sometimes' : 'always'
}

function verdictOfOne(test: Test, facts: readonly Test[]): Verdict {
  const own = facts.filter(({ subject }) => subject === test.subject)
  const verdicts = own.map(fact => verdictOfPair(test, fact))
  return verdicts.find(verdict => verdict !== 'sometimes') ?? 'sometimes'
}

function verdictOfPair(test: Test, fact: Test): Verdict {
  if (test.value === fact.value && test.operator === fact.operator) return 'always'
  if (test.value === fact.value && opposites[test.operator] === fact.operator) return 'never'
  if (isNegative(test)) return opposite(verdictOfPair(negated(test), fact))
  if (test.subject !== '$HTTP["url"]') return verdictOfNames(test, fact)
  if (fact.operator === '==') {
    const passed = passes(test, fact.value)
    return passed === undefined ? 'sometimes' : passed ? 'always' : 'never'
  }
  if (fact.operator !== '=^') return 'sometimes'
  const isInside = fact.value.startsWith(test.value)
  if (test.operator === '=^') return isInside ? 'always' : test.value.startsWith(fact.value) ? 'sometimes' : 'never'
  if (test.operator === '==') return test.value.startsWith(fact.value) ? 'sometimes' : 'never'
  return 'sometimes'
}

/**
 * The verdict for hosts and addresses. lighttpd compares a host with and without its port, and `10.0.0.1` is in `10.0.0.0/8`: only two
 * different host names certainly exclude each other.
 */
function verdictOfNames(test: Test, fact: Test): Verdict {
  const areHosts = [test, fact].every(
    ({ subject, operator, value }) => subject === '$HTTP["host"]' && operator === '==' && !value.includes(':'),
  )
  return areHosts ? 'never' : 'sometimes'
}

function opposite(verdict: Verdict): Verdict {
  return verdict === 'always' ? 'never' : verdict === 'never' ? 'always' : 'sometimes'
}

/**
 * The negation of all `tests` together.
 *
 * @returns `undefined` if their subjects differ, or JavaScript has no expression for them
 */
export function excluding(tests: readonly Test[]): Test | undefined {
  const [first] = tests
  if (!first || tests.some(({ subject }) => subject !== first.subject)) return undefined
  if (tests.length === 1) return negated(first)
  const value = conjunction(tests)
  return value === undefined ? undefined : { subject: first.subject, operator: '!~', value }
}

function withoutRepeats(tests: readonly Test[]): Test[] {
  const seen = new Set<string>()
  return tests.filter(test => {
    const key = conditionText([test])
    if (seen.has(key)) return false
    seen.add(key)
    return true
  })
}

const urlSubject = '$HTTP["url"]'
const hostSubject = '$HTTP["host"]'
const addressSubject = '$HTTP["remoteip"]'

/** The tests of one subject. */
export function testsOf(subject: 'url' | 'host' | 'remoteip', tests: readonly Test[]): Test[] {
  return tests.filter(test => test.subject === `$HTTP["${subject}"]`)
}

/** The tests of all other subjects, which mqway does not support. */
export function otherTests(tests: readonly Test[]): Test[] {
  return tests.filter(({ subject }) => ![urlSubject, hostSubject, addressSubject].includes(subject))
}

/** A test of the path. */
export function urlTest(operator: Test['operator'], value: string): Test {
  return { subject: urlSubject, operator, value }
}
