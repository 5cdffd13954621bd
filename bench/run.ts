import { readFileSync } from 'node:fs'
import { type Cell, fullCells } from './cells.js'
import { makeCertificate } from './certificate.js'
import { openScratch } from './children.js'
import { type Conditions, measure } from './measure.js'
import { compileNative } from './native.js'
import { help, readOptions } from './options.js'
import { textOf, writeResults } from './report.js'
import { Results } from './results.js'

/** 6,000 connections are 12,000 descriptors of the gateway. */
const neededFiles = 13_000
/** The quick form ends by itself before CI would, in seconds. */
const quickLimit = 58

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2))
  if (options === 'help') {
    console.log(help)
    return 0
  }
  const scratch = openScratch()
  if (options.quick) {
    setTimeout(() => {
      console.error(`bench: --quick took more than ${quickLimit} s`)
      process.exit(1)
    }, quickLimit * 1000).unref()
  }
  checkFileLimit()
  compileNative()
  const missing = missingSystems(options.cells)
  const { rounds, warmup, seconds } = options
  const conditions = { scratch, certificate: await makeCertificate(scratch), warmup, seconds }
  const results = new Results()
  for (let round = 1; round <= rounds; round++) {
    for (const cell of options.cells) {
      console.error(`round ${round} of ${rounds}: ${cell.name}`)
      await runCell(cell, round, conditions, results)
    }
  }
  const text = textOf(results, options, missing)
  console.log(text)
  for (const { cell, system, reason } of results.failures) console.log(`failed: ${cell}, ${system}: ${reason}`)
  console.log(`every round: ${writeResults(results, options, missing, text)}`)
  return results.failures.some(({ system }) => system.startsWith('mqway')) ? 1 : 0
}

/** Every system in turn, so that what else the machine does meanwhile meets all of them. */
async function runCell(cell: Cell, round: number, conditions: Conditions, results: Results): Promise<void> {
  const rate = cell.pacedBy === undefined ? undefined : await pace(cell, cell.pacedBy, round, conditions, results)
  for (const system of cell.systems) {
    if (system.missing() !== undefined) continue
    try {
      results.add(cell, system, round, await measure(cell, system, conditions, rate))
    } catch (error) {
      results.fail(cell, system, error)
    }
  }
}

/** Without the peer, a rate that any system bears, in rounds per second. */
const modestRate = 10_000

/** Half of what the peer has reached in this round, or reaches now. */
async function pace(cell: Cell, by: string, round: number, conditions: Conditions, results: Results): Promise<number> {
  const pacing = fullCells.find(({ name }) => name === by)
  if (pacing === undefined || cell.peer.missing() !== undefined) return modestRate
  const known = results.run(by, cell.peer, round)
  const { load } = known ?? (await measure(pacing, cell.peer, conditions))
  return load === undefined ? modestRate : load.messages / load.seconds / 2
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
