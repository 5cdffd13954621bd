import type { Cell, Figure, Target } from './cells.js'
import { figureKinds, processorSeconds, type Spread, spreadOf } from './figures.js'
import type { Run } from './measure.js'
import type { System } from './systems/system.js'

/** Everything that was measured, and what could not be. */
export class Results {
  readonly failures: { cell: string; system: string; reason: string }[] = []
  /** By round, from 1; where a run failed there is none. */
  readonly #runs = new Map<string, Map<number, Run>>()

  add(cell: Cell, system: System, round: number, run: Run): void {
    const key = keyOf(cell.name, system)
    const runs = this.#runs.get(key) ?? new Map<number, Run>()
    this.#runs.set(key, runs.set(round, run))
  }

  fail(cell: Cell, system: System, error: unknown): void {
    this.failures.push({
      cell: cell.name,
      system: system.name,
      reason: error instanceof Error ? error.message : String(error),
    })
  }

  runs(cell: string, system: System): readonly Run[] {
    return [...(this.#runs.get(keyOf(cell, system))?.values() ?? [])]
  }

  run(cell: string, system: System, round: number): Run | undefined {
    return this.#runs.get(keyOf(cell, system))?.get(round)
  }

  spread(cell: string, system: System, figure: Figure): Spread | undefined {
    return spreadOf(this.runs(cell, system).flatMap(run => figureKinds[figure].of(run) ?? []))
  }

  /** The median of the rounds' ratios: what drifts from round to round drifts for both. */
  ratio(cell: string, system: System, against: System, figure: Figure, itsCell = cell): number | undefined {
    const { of } = figureKinds[figure]
    const rounds = [...(this.#runs.get(keyOf(cell, system)) ?? [])]
    const ratios = rounds.flatMap(([round, run]) => {
      const own = of(run)
      const peer = this.run(itsCell, against, round)
      const other = peer && of(peer)
      return own === undefined || !other ? [] : own / other
    })
    return spreadOf(ratios)?.median
  }

  /** One row for each system, as text and with a heading. */
  table(cell: Cell): string[][] {
    const shown: readonly Figure[] = cell.load ? [...cell.figures, 'collections'] : cell.figures
    const head = ['', ...shown.map(figure => figureKinds[figure].heading), 'user + system', 'generator']
    const rows = cell.systems.map(system => {
      const failed = this.failures.find(({ cell: name, system: who }) => name === cell.name && who === system.name)
      if (this.runs(cell.name, system).length === 0) return [system.name, failed ? 'failed' : 'missing']
      const figures = shown.map(figure => this.#entry(cell, system, figure))
      return [system.name, ...figures, this.#split(cell, system), this.#generator(cell, system)]
    })
    return [head, ...rows]
  }

  target({ cell, figure, system, against, itsCell, reach }: Target): { reached: number | undefined; met: boolean } {
    const reached = against
      ? this.ratio(cell, system, against, figure, itsCell)
      : this.spread(cell, system, figure)?.median
    const met = reached !== undefined && (figureKinds[figure].better === 'lower' ? reached <= reach : reached >= reach)
    return { reached, met }
  }

  /** `0.115 ±4% ×0.62`: the median, its spread, its ratio to the peer. */
  #entry(cell: Cell, system: System, figure: Figure): string {
    const spread = this.spread(cell.name, system, figure)
    if (!spread) return '-'
    const ratio = system === cell.peer ? undefined : this.ratio(cell.name, system, cell.peer, figure)
    return [
      amount(spread.median),
      ...(spread.values.length > 1 ? [`±${Math.round(spread.percent)}%`] : []),
      ...(ratio === undefined ? [] : [`×${ratio.toFixed(2)}`]),
    ].join(' ')
  }

  #split(cell: Cell, system: System): string {
    const seconds = this.runs(cell.name, system).flatMap(run => processorSeconds(run) ?? [])
    const user = spreadOf(seconds.map(({ user }) => user))?.median
    const kernel = spreadOf(seconds.map(({ system }) => system))?.median
    return user === undefined || kernel === undefined ? '-' : `${user.toFixed(2)} + ${kernel.toFixed(2)} s`
  }

  #generator(cell: Cell, system: System): string {
    const share = spreadOf(this.runs(cell.name, system).flatMap(({ load }) => load?.generator ?? []))?.median
    return share === undefined ? '-' : `${Math.round(100 * share)}%`
  }
}

function keyOf(cell: string, system: System): string {
  return `${cell} ${system.name}`
}

/** Three significant digits, with k and M. */
export function amount(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(3))} k`
  return String(Number(value.toPrecision(3)))
}
