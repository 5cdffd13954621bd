import { conditionText, conjunction, otherTests, type Test, testsOf, verdictOf } from './conditions.js'
import type { TunnelInput } from './drafts.js'
import { escapeRegex } from './patterns.js'

/** The conditions of a tunnel as options of mqway. */
export interface Match {
  readonly input: Partial<TunnelInput>
  /** Why mqway cannot express them, if it cannot. */
  readonly refusal?: string
}

/**
 * Translates conditions to the options `path…`, `hosts` and `allow` of a tunnel.
 *
 * @param hasDefaultPort whether clients leave the port out of the Host header
 */
export function matchFacts(facts: readonly Test[], hasDefaultPort: boolean): Match {
  const [urls, hosts, addresses] = (['url', 'host', 'remoteip'] as const).map(subject => testsOf(subject, facts))
  const others = otherTests(facts)
  const path = pathOf(urls ?? [])
  const host = hostOf(hosts ?? [], hasDefaultPort)
  const allow = addressesOf(addresses ?? [])
  const refusal =
    path.refusal ??
    host.refusal ??
    allow.refusal ??
    (others.length > 0 ? `mqway does not look at ${conditionText(others)}` : undefined)
  return {
    input: { ...path.input, ...host.input, ...allow.input },
    ...(refusal === undefined ? {} : { refusal }),
  }
}

const noExpression = 'JavaScript has no regular expression for its condition'

function pathOf(tests: readonly Test[]): Match {
  const saying = tests.filter(test => !isAlwaysTrue(test))
  const needed = saying.filter(
    (test, index) => !saying.some((other, at) => at !== index && makesNeedless(other, at, test, index)),
  )
  const anywhere = { pathPrefix: '/' }
  const [only, ...more] = needed
  if (!only) return { input: anywhere }
  const never = needed.find(test => /^=[=^]$/.test(test.operator) && !test.value.startsWith('/'))
  if (never) return { input: anywhere, refusal: `no path is one with ${conditionText([never])}: all begin with /` }
  if (more.length === 0 && only.operator === '=^') return { input: { pathPrefix: only.value } }
  if (more.length === 0 && only.operator === '=$') return { input: { pathSuffix: only.value } }
  const pathPattern = conjunction(needed)
  return pathPattern === undefined ? { input: anywhere, refusal: noExpression } : { input: { pathPattern } }
}

/** Whether every path passes the test. */
function isAlwaysTrue({ operator, value }: Test): boolean {
  return /^=[$~]$/.test(operator) ? value === '' : operator === '=^' && (value === '' || value === '/')
}

/** Whether `other` implies `test`; of two equal tests, only the earlier one implies the other. */
function makesNeedless(other: Test, at: number, test: Test, index: number): boolean {
  const isSame = conditionText([other]) === conditionText([test])
  return isSame ? at < index : verdictOf([test], [other]) === 'always'
}

function hostOf(tests: readonly Test[], hasDefaultPort: boolean): Match {
  if (tests.length === 0) return { input: {} }
  const never = tests.find(({ operator, value }) => operator === '==' && value !== value.toLowerCase())
  if (never) return { input: {}, refusal: `${conditionText([never])} is never true: lighttpd has hosts in lower case` }
  const [only] = tests
  const isAboutPort = tests.some(test => namesPort(test) || (!hasDefaultPort && looksAtPort(test)))
  const isName = tests.length === 1 && only?.operator === '==' && /^[a-z0-9_.-]+$/.test(only.value)
  if (isName && !isAboutPort) return { input: { hosts: [only.value] } }
  const source = conjunction(isAboutPort ? tests.map(withPort) : tests)
  if (source === undefined) return { input: {}, refusal: noExpression }
  // With a colon in it, mqway matches the expression with host and port.
  return {
    input: { hosts: [isAboutPort ? `/(?!:)${source}/` : `/${source}/`] },
  }
}

/** Whether the comparison is with `a.example:8080`. */
function namesPort({ operator, value }: Test): boolean {
  return /^[!=]=$/.test(operator) && /^([^:]+|\[.*\]):\d+$/.test(value)
}

/** Makes a comparison match the host with and without the port, as lighttpd does. */
function withPort(test: Test): Test {
  if (!/^[!=]=$/.test(test.operator)) return test
  const [name, port] = namesPort(test) ? test.value.split(/:(?=\d+$)/) : [test.value]
  const value = `^${escapeRegex(name ?? '')}(?::${port ?? '\\d+'})?$`
  return { ...test, operator: test.operator === '==' ? '=~' : '!~', value }
}

/** Whether a port in the Host header may change the result: `=~ "a\.example$"` does not match `a.example:8080`. */
function looksAtPort(test: Test): boolean {
  return /[~$]$/.test(test.operator) && /[$:]|\\[zZ]/.test(test.operator + test.value)
}

function addressesOf(tests: readonly Test[]): Match {
  if (tests.length === 0) return { input: {} }
  const [only] = tests
  if (tests.length === 1 && only?.operator === '==' && !only.value.startsWith('/')) {
    return { input: { allow: [only.value] } }
  }
  return { input: {}, refusal: `mqway cannot say ${conditionText(tests)}` }
}
