import { isNegative, passes, simplified, type Test } from './conditions.js'
import { type Evaluated, type Scope, type Setting, textOf } from './evaluate.js'

/** A scope at one socket, without the conditions that the socket decides. */
export interface ViewScope extends Scope {
  readonly tests: readonly Test[]
  /** Whether it is the same at every socket. */
  readonly isEverywhere: boolean
}

/** The socket that a request comes in at. */
export interface SocketFacts {
  /** Whether `:443`, the text of a block, is its address. */
  readonly isAt: (address: string) => boolean
  readonly tls: boolean | undefined
  /** Whether clients leave its port out of the Host header. */
  readonly hasDefaultPort: boolean
}

const socketSubject = '$SERVER["socket"]'
const schemeSubject = '$HTTP["scheme"]'

/** The configuration as it holds for requests at one socket. */
export class View {
  /** The whole server first; of two that hold for a request, the later one counts. */
  readonly scopes: readonly ViewScope[]
  readonly hasDefaultPort: boolean
  readonly #taken: Set<Setting>

  /** @param taken settings that something was made of, of all views together */
  constructor({ global, blocks }: Evaluated, facts: SocketFacts, taken: Set<Setting>) {
    this.scopes = [global, ...blocks].flatMap(scope => {
      const tests = residualTests(scope.tests, facts)
      if (!tests) return []
      return [{ ...scope, tests: tests.map(simplified), isEverywhere: tests.length === scope.tests.length }]
    })
    this.hasDefaultPort = facts.hasDefaultPort
    this.#taken = taken
  }

  /** The setting for every request, which counts as carried over from now on. */
  take(name: string): Setting | undefined {
    const setting = this.scopes
      .findLast(({ tests, settings }) => tests.length === 0 && settings.has(name))
      ?.settings.get(name)
    if (setting) this.#taken.add(setting)
    return setting
  }

  /** The text or number of such a setting. */
  takeText(name: string): string | undefined {
    return textOf(this.take(name)?.value)
  }

  /** Whether such a setting is `"enable"`; `undefined` if it is not set. */
  takeSwitch(name: string): boolean | undefined {
    const setting = this.take(name)
    return setting && isEnabled(setting)
  }

  /** The text of a setting of `scope` alone, which counts as carried over from now on. */
  takeTextIn({ settings }: ViewScope, name: string): string | undefined {
    const setting = settings.get(name)
    if (setting) this.#taken.add(setting)
    return textOf(setting?.value)
  }

  /** All settings of this name with their conditions, in order; they count as carried over from now on. */
  takeAll(name: string): { readonly scope: ViewScope; readonly setting: Setting }[] {
    return this.scopes.flatMap(scope => {
      const setting = scope.settings.get(name)
      if (!setting) return []
      this.#taken.add(setting)
      return [{ scope, setting }]
    })
  }
}

/** The tests that the socket leaves open; `undefined` if one is false at this socket. */
function residualTests(tests: readonly Test[], facts: SocketFacts): Test[] | undefined {
  const open: Test[] = []
  for (const test of tests) {
    const known = decided(test, facts)
    if (known === false) return undefined
    if (known === undefined) open.push(test)
  }
  return open
}

/** A regular expression about a socket is not decided here: lighttpd compares it with an address in a form of its own. */
function decided(test: Test, { isAt, tls }: SocketFacts): boolean | undefined {
  if (test.subject === socketSubject) {
    return /^[!=]=$/.test(test.operator) ? isAt(test.value) !== isNegative(test) : undefined
  }
  if (test.subject === schemeSubject && tls !== undefined) return passes(test, tls ? 'https' : 'http')
  return undefined
}

/** Whether a switch is on: `"enable"`, `"true"`, `1` and the like, as lighttpd takes them. */
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
