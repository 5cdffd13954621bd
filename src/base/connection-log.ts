import type { Logger } from './log.js'

/** Fields of every line about a connection: its id, peer and identity. */
export type Bindings = Readonly<Record<string, unknown>>

/** Writes a line with fields and a message. */
interface Write {
  (fields: object, text: string): void
  (text: string): void
}

/** The log of one connection; a pino logger is one. */
export interface ConnectionLog {
  readonly debug: Write
  readonly info: Write
  readonly warn: Write
  readonly error: Write
  /** Adds fields to all later lines. */
  setBindings(bindings: Bindings): void
}

/**
 * A connection's log that creates its child logger with the first line: a child serializes its bindings at once, which most connections
 * never need.
 */
export class LazyLogger implements ConnectionLog {
  readonly #parent: Logger
  /** Merged with the first line: merged objects have a hidden class of their own each, at 200 bytes. */
  readonly #bindings: Bindings[]
  #child: Logger | undefined

  constructor(parent: Logger, bindings: Bindings) {
    this.#parent = parent
    this.#bindings = [bindings]
  }

  debug(first: object | string, text?: string): void {
    this.#write('debug', first, text)
  }

  info(first: object | string, text?: string): void {
    this.#write('info', first, text)
  }

  warn(first: object | string, text?: string): void {
    this.#write('warn', first, text)
  }

  error(first: object | string, text?: string): void {
    this.#write('error', first, text)
  }

  setBindings(bindings: Bindings): void {
    if (this.#child) this.#child.setBindings(bindings)
    else this.#bindings.push(bindings)
  }

  #write(level: 'debug' | 'info' | 'warn' | 'error', first: object | string, text?: string): void {
    if (!this.#parent.isLevelEnabled(level)) return
    this.#child ??= this.#parent.child(Object.assign({}, ...this.#bindings))
    // A child has the level of the time when it was made.
    if (this.#child.level !== this.#parent.level) this.#child.level = this.#parent.level
    if (typeof first === 'string') this.#child[level](first)
    else this.#child[level](first, text)
  }
}
