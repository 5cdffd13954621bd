import { GatewayError } from '../base/errors.js'
import { pathVariants } from '../base/path-variants.js'
import { expressionOf } from '../config/forms.js'
import { compileAddresses } from './addresses.js'

export interface SiteRulesOptions {
  /** Addresses or CIDR ranges that may connect. Default: all. */
  readonly allow?: readonly string[] | undefined
  /** Ends of paths, or `/regular expression/`. */
  readonly deny: readonly string[]
}

/** Access rules that apply to every request before any other check: `limits.allow` and `deny`. */
export class SiteRules {
  readonly #allows: ((address: string) => boolean) | undefined
  readonly #ends: readonly string[]
  readonly #patterns: readonly RegExp[]

  /** @throws {TypeError} naming the first invalid entry of `allow` */
  constructor({ allow, deny }: SiteRulesOptions) {
    this.#allows = allow && compileAddresses(allow)
    const expressions = deny.map(expressionOf)
    this.#patterns = expressions.flatMap(source => (source === undefined ? [] : [new RegExp(source, 'u')]))
    this.#ends = deny.filter((_, index) => expressions[index] === undefined)
  }

  /** @throws {GatewayError} `address-refused` */
  checkAddress(address: string): void {
    if (this.#allows?.(address) === false) throw new GatewayError('address-refused')
  }

  /**
   * Checks a path, decoded or not, with all its spellings: `/a%2ephp`, `//a.php`, `/b/../a.php`.
   *
   * @throws {GatewayError} `path-refused`
   */
  checkPath(path: string): void {
    if (this.#ends.length === 0 && this.#patterns.length === 0) return
    for (const spelling of pathVariants(path)) {
      const isDenied =
        this.#ends.some(end => spelling.endsWith(end)) || this.#patterns.some(rule => rule.test(spelling))
      if (isDenied) throw new GatewayError('path-refused')
    }
  }
}
