import { parseArgs } from 'node:util'
import { type Cell, fullCells, quickCells, systems } from './cells.js'

/** What the command line asks for. All times in seconds. */
export interface Options {
  readonly quick: boolean
  readonly cells: readonly Cell[]
  readonly rounds: number
  readonly warmup: number
  readonly seconds: number
}

export const help = `npm run bench -- [options]

  --quick            a small set in less than a minute, which only shows that it works
  --only CELL,…      these cells only
  --systems NAME,…   these systems only
  --rounds N         rounds to take the median of: 3
  --seconds S        measured time of each cell: 2
  --warmup S         time before it: 0.7

cells: ${fullCells.map(cell => cell.name).join(' ')}
systems: ${systems.map(system => `'${system.name}'`).join(' ')}
`

/** @throws {Error} which says what is wrong with the command line */
export function readOptions(argv: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      systems: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      warmup: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return 'help'
  const { quick } = values
  const known = fullCells.map(cell => cell.name)
  const only = list('--only', values.only, known)
  const wanted = list(
    '--systems',
    values.systems,
    systems.map(system => system.name),
  )
  const all = quick ? quickCells : fullCells
  const cells = all
    .filter(cell => only === undefined || only.includes(cell.name))
    .map(cell => ({
      ...cell,
      systems: cell.systems.filter(({ name }) => wanted === undefined || wanted.includes(name)),
    }))
    .filter(cell => cell.systems.length > 0)
  return {
    quick,
    cells,
    rounds: number('--rounds', values.rounds, quick ? 1 : 3),
    seconds: number('--seconds', values.seconds, quick ? 0.3 : 2),
    warmup: number('--warmup', values.warmup, quick ? 0.1 : 0.7),
  }
}

function list(name: string, text: string | undefined, known: readonly string[]): string[] | undefined {
  const names = text?.split(',').map(part => part.trim())
  const unknown = names?.find(part => !known.includes(part))
  if (unknown !== undefined) throw new Error(`${name}: ${unknown} is none of ${known.join(', ')}`)
  return names
}

function number(name: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise
  const value = Number(text)
  if (!(value > 0 && value <= 100)) throw new Error(`${name}: must be a number above 0, and at most 100`)
  return value
}
