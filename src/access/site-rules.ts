import { GatewayError } from '../base/errors.js'
import { spellingsOf } from '../base/path-spellings.js'
import { compileAddresses } from './addresses.js'

export interface SiteRulesOptions {
  /** Addresses or CIDR ranges that may connect; everybody when left out. */
  readonly allow?: readonly string[] | undefined
  /** Ends of paths, or `/regular expression/`. */
  readonly deny: readonly string[]
}

/** The rules that hold for every request, page or tunnel, before anything else is looked at. */
export class SiteRules {
  readonly #allows: ((address: string) => boolean) | undefined
  readonly #ends: readonly string[]
  readonly #patterns: readonly RegExp[]

  /** @throws {TypeError} naming the first entry of `allow` that is no range */
  constructor({ allow, deny }: SiteRulesOptions) {
    this.#allows = allow && compileAddresses(allow)
    const expressions = deny.map(entry => /^\/(.+)\/$/s.exec(entry)?.[1])
    this.#patterns = expressions.flatMap(source => (source === undefined ? [] : [new RegExp(source, 'u')]))
    this.#ends = deny.filter((_, index) => expressions[index] === undefined)
  }

  /** @throws {Ending} `address-refused` */
  checkAddress(address: string): void {
    if (this.#allows?.(address) === false) throw new GatewayError('address-refused')
  }

  /**
   * Checks a path, decoded or not, with all its spellings: `/a%2ephp`, `//a.php`, `/b/../a.php`.
   *
   * @throws {Ending} `path-refused`
   */
  checkPath(path: string): void {
    if (this.#ends.length === 0 && this.#patterns.length === 0) return
    for (const spelling of spellingsOf(path)) {
      const isDenied =
        this.#ends.some(end => spelling.endsWith(end)) || this.#patterns.some(rule => rule.test(spelling))
      if (isDenied) throw new GatewayError('path-refused')
    }
  }
}
