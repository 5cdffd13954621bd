import type { Position } from './tokens.js'

/** Something that a person should know about, with its line. */
export interface Finding {
  readonly file: string
  readonly line: number
  readonly message: string
  /** Whether a person has to decide something: the result is not all that lighttpd did. */
  readonly needsDecision: boolean
}

/** Adds a finding about the line at `at`. */
export type Tell = (at: Position, message: string) => void

/** Collects what a person should know about an import. */
export class Report {
  readonly #findings: Finding[] = []

  /** A difference without a consequence for clients. */
  readonly note: Tell = (at, message) => this.#add(at, message, false)

  /** A difference that a person has to look at. */
  readonly warn: Tell = (at, message) => this.#add(at, message, true)

  #add({ file, line }: Position, message: string, needsDecision: boolean): void {
    const isKnown = this.#findings.some(
      known => known.file === file && known.line === line && known.message === message,
    )
    if (!isKnown) this.#findings.push({ file, line, message, needsDecision })
  }

  /** By line within each file; files in the order in which they first turn up. */
  inOrder(): Finding[] {
    const files = [...new Set(this.#findings.map(({ file }) => file))]
    return this.#findings.toSorted((a, b) => files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line)
  }
}
