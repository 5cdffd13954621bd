import { List, type Setting, type Settings, type Value, type Warning } from './evaluate.js'
import type { Position } from './tokens.js'

/** Collects what a person should know, in the order in which it turns up. */
export type Warn = (at: Position, message: string) => void

/** The settings of one block, and which of them something was made of. */
export class Directives {
  readonly #settings: Settings
  readonly #taken = new Set<string>()
  readonly #warn: Warn

  constructor(settings: Settings, warn: Warn) {
    this.#settings = settings
    this.#warn = warn
  }

  /** The setting without carrying it over. */
  get(name: string): Setting | undefined {
    return this.#settings.get(name)
  }

  /** The setting, which counts as carried over from now on. */
  take(name: string): Setting | undefined {
    this.#taken.add(name)
    return this.#settings.get(name)
  }

  /** The text or number that a directive is set to, as text. */
  takeText(name: string): string | undefined {
    const setting = this.take(name)
    return setting && this.#scalar(setting)
  }

  /** Whether a directive is `"enable"`. */
  takeSwitch(name: string): boolean | undefined {
    const text = this.takeText(name)
    return text === undefined ? undefined : text === 'enable'
  }

  /** What nothing was made of. Variables are no directives. */
  rest(): Setting[] {
    return [...this.#settings.values()].filter(({ name }) => !this.#taken.has(name) && !/^(var|env)\./.test(name))
  }

  #scalar({ name, value, at }: Setting): string | undefined {
    const text = textOf(value)
    if (text === undefined) this.#warn(at, `${name} is not carried over: it should be a text or a number, not a list`)
    return text
  }
}

/** A text or a number as text; `undefined` for a list. */
export function textOf(value: Value | undefined): string | undefined {
  return value === undefined || value instanceof List ? undefined : String(value)
}

/** A list of warnings with the function that adds to it. */
export function collectWarnings(): { warnings: Warning[]; warn: Warn } {
  const warnings: Warning[] = []
  return { warnings, warn: (at, message) => warnings.push({ file: at.file, line: at.line, message }) }
}
