import type { Position } from './tokens.js'

/** A difference between the configurations, with its line. */
export interface Finding {
  readonly file: string
  readonly line: number
  readonly message: string
  /** Whether a person has to decide about it, because the result does less than lighttpd did. */
  readonly needsDecision: boolean
}

/** Collects the findings of an import. */
export class Report {
  readonly #findings: Finding[] = []

  /** Adds a difference without a consequence for clients. */
  note(at: Position, message: string): void {
    this.#add(at, message, false)
  }

  /** Adds a difference that a person has to decide about. */
  warn(at: Position, message: string): void {
    this.#add(at, message, true)
  }

  #add({ file, line }: Position, message: string, needsDecision: boolean): void {
    const isKnown = this.#findings.some(
      known => known.file === file && known.line === line && known.message === message,
    )
    if (!isKnown) this.#findings.push({ file, line, message, needsDecision })
  }

  /** The findings by line within each file; files in order of their first finding. */
  inOrder(): Finding[] {
    const files = [...new Set(this.#findings.map(({ file }) => file))]
    return this.#findings.toSorted((a, b) => files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line)
  }
}
