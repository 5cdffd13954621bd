import { isNegative, passes, simplified, type Test } from './conditions.js'
import { type Evaluated, type Scope, type Setting, textOf } from './evaluate.js'

/** A scope at one socket, without the conditions about the socket. */
export interface ViewScope extends Scope {
  readonly tests: readonly Test[]
  /** Whether it applies to every socket. */
  readonly isEverywhere: boolean
}

/** Facts about the socket of a request. */
export interface SocketFacts {
  /** Whether an address in a condition, such as `:443`, is its own. */
  readonly isAt: (address: string) => boolean
  readonly tls: boolean | undefined
  /** Whether clients omit its port in the Host header. */
  readonly hasDefaultPort: boolean
}

const socketSubject = '$SERVER["socket"]'
const schemeSubject = '$HTTP["scheme"]'

/** The configuration for requests at one socket. Reading a setting marks it as translated. */
export class View {
  /** The whole server first; of two matching scopes, the later one applies. */
  readonly scopes: readonly ViewScope[]
  readonly hasDefaultPort: boolean
  readonly #taken: Set<Setting>

  /** @param taken collects the translated settings of all views */
  constructor({ global, blocks }: Evaluated, facts: SocketFacts, taken: Set<Setting>) {
    this.scopes = [global, ...blocks].flatMap(scope => {
      const tests = residualTests(scope.tests, facts)
      if (!tests) return []
      return [{ ...scope, tests: tests.map(simplified), isEverywhere: tests.length === scope.tests.length }]
    })
    this.hasDefaultPort = facts.hasDefaultPort
    this.#taken = taken
  }

  /** The unconditional setting. */
  take(name: string): Setting | undefined {
    const setting = this.scopes
      .findLast(({ tests, settings }) => tests.length === 0 && settings.has(name))
      ?.settings.get(name)
    if (setting) this.#taken.add(setting)
    return setting
  }

  /** The text or number of the unconditional setting. */
  takeText(name: string): string | undefined {
    return textOf(this.take(name)?.value)
  }

  /** Whether the unconditional setting is `"enable"`; `undefined` if it is not set. */
  takeSwitch(name: string): boolean | undefined {
    const setting = this.take(name)
    return setting && isEnabled(setting)
  }

  /** The text of a setting of `scope` alone. */
  takeTextIn({ settings }: ViewScope, name: string): string | undefined {
    const setting = settings.get(name)
    if (setting) this.#taken.add(setting)
    return textOf(setting?.value)
  }

  /** All settings of this name with their scopes, in order. */
  takeAll(name: string): { readonly scope: ViewScope; readonly setting: Setting }[] {
    return this.scopes.flatMap(scope => {
      const setting = scope.settings.get(name)
      if (!setting) return []
      this.#taken.add(setting)
      return [{ scope, setting }]
    })
  }
}

/** The tests that are not about the socket; `undefined` if one is false at this socket. */
function residualTests(tests: readonly Test[], facts: SocketFacts): Test[] | undefined {
  const open: Test[] = []
  for (const test of tests) {
    const known = decided(test, facts)
    if (known === false) return undefined
    if (known === undefined) open.push(test)
  }
  return open
}

/** The result of a test about the socket; `undefined` for other tests, and for regular expressions, whose subject has a special form. */
function decided(test: Test, { isAt, tls }: SocketFacts): boolean | undefined {
  if (test.subject === socketSubject) {
    return /^[!=]=$/.test(test.operator) ? isAt(test.value) !== isNegative(test) : undefined
  }
  if (test.subject === schemeSubject && tls !== undefined) return passes(test, tls ? 'https' : 'http')
  return undefined
}

/** Whether a switch is on: `"enable"`, `"true"` or `1`, as in lighttpd. */
export function isEnabled({ value }: Setting): boolean {
  return /^(enabled?|true|1)$/i.test(textOf(value) ?? '')
}

/** The addresses of all blocks `$SERVER["socket"] == "…"`, in order: lighttpd listens on each. */
export function socketAddresses({ blocks }: Evaluated): { readonly address: string; readonly at: Scope['at'] }[] {
  const found = new Map<string, Scope['at']>()
  for (const { tests, at } of blocks) {
    for (const { subject, operator, value } of tests) {
      if (subject === socketSubject && operator === '==' && !found.has(value)) found.set(value, at)
    }
  }
  return [...found].map(([address, at]) => ({ address, at }))
}
