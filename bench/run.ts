import { readFileSync } from 'node:fs'
import { type Cell, fullCells } from './cells.js'
import { makeCertificate } from './certificate.js'
import { endChildrenWithThisProcess } from './children.js'
import { measure } from './measure.js'
import { compileNative } from './native.js'
import { help, type Options, readOptions } from './options.js'
import { textOf, writeResults } from './report.js'
import { Results } from './results.js'
import type { Setup } from './systems/system.js'

/** 5,000 idle connections are 10,000 descriptors of the gateway. */
const neededFiles = 11_000
/** The quick form ends by itself before CI would, in seconds. */
const quickLimit = 58

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2))
  if (options === 'help') {
    console.log(help)
    return 0
  }
  endChildrenWithThisProcess()
  if (options.quick) {
    setTimeout(() => {
      console.error(`bench: --quick took more than ${quickLimit} s`)
      process.exit(1)
    }, quickLimit * 1000).unref()
  }
  checkFileLimit()
  compileNative()
  const missing = missingSystems(options.cells)
  const certificate = await makeCertificate()
  const results = new Results()
  try {
    for (let round = 1; round <= options.rounds; round++) {
      for (const cell of options.cells) await runCell(cell, round, options, certificate, results)
    }
  } finally {
    certificate.remove()
  }
  const text = textOf(results, options, missing)
  console.log(text)
  for (const { cell, system, reason } of results.failures) console.log(`failed: ${cell}, ${system}: ${reason}`)
  console.log(`every round: ${writeResults(results, options, missing, text)}`)
  return results.failures.some(({ system }) => system.startsWith('mqway')) ? 1 : 0
}

/** Every system in turn, so that what else the machine does meanwhile meets all of them. */
async function runCell(
  cell: Cell,
  round: number,
  options: Options,
  certificate: Setup['certificate'],
  results: Results,
): Promise<void> {
  const rate =
    cell.pacedBy === undefined ? undefined : await pace(cell, cell.pacedBy, round, options, certificate, results)
  for (const system of cell.systems) {
    if (system.missing() !== undefined) continue
    console.error(`round ${round} of ${options.rounds}: ${cell.name}, ${system.name}`)
    try {
      results.add(cell, system, await measure(cell, system, options, certificate, rate))
    } catch (error) {
      results.fail(cell, system, error)
    }
  }
}

/** Half of what the peer has reached in this round, or reaches now; without the peer, a rate that any system bears. */
async function pace(
  cell: Cell,
  by: string,
  round: number,
  options: Options,
  certificate: Setup['certificate'],
  results: Results,
): Promise<number> {
  const pacing = fullCells.find(({ name }) => name === by)
  if (pacing === undefined || cell.peer.missing() !== undefined) return 10_000
  const known = results.runs(by, cell.peer)[round - 1]
  const { load } = known ?? (await measure(pacing, cell.peer, options, certificate))
  return load === undefined ? 10_000 : load.messages / load.seconds / 2
}

/** What is not installed is named, never silently left out. */
function missingSystems(cells: readonly Cell[]): string[] {
  const missing = [...new Set(cells.flatMap(cell => cell.systems))].flatMap(system => {
    const what = system.missing()
    return what === undefined ? [] : [`${system.name}: there is no ${what}`]
  })
  for (const line of missing) console.error(`missing: ${line}`)
  return missing
}

function checkFileLimit(): void {
  // Node raises its soft limit to the hard one, and its children inherit that.
  const line = readFileSync('/proc/self/limits', 'utf8').match(/^Max open files +(\d+|unlimited)/m)
  const limit = line?.[1] === 'unlimited' ? Infinity : Number(line?.[1])
  if (limit < neededFiles) throw new Error(`needs ${neededFiles} open files, may have ${limit}: raise \`ulimit -Hn\``)
}

main().then(
  code => process.exit(code),
  error => {
    console.error(`bench: ${error instanceof Error ? error.message : error}`)
    process.exit(1)
  },
)
