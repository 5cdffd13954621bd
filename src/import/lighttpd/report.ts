import type { Position } from './tokens.js'

/** A difference between the configurations, with its line. */
export interface Finding {
  readonly file: string
  readonly line: number
  readonly message: string
  /** Whether a person has to look at it, because the result does less than lighttpd did. */
  readonly needsDecision: boolean
}

/** Adds a finding at a position. */
export type AddFinding = (at: Position, message: string) => void

/** Collects the findings of an import. */
export class Report {
  readonly #findings: Finding[] = []

  /** A difference without a consequence for clients. */
  readonly note: AddFinding = (at, message) => this.#add(at, message, false)

  /** A difference that a person has to look at. */
  readonly warn: AddFinding = (at, message) => this.#add(at, message, true)

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
