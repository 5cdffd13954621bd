import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { type Cell, targets } from './cells.js'
import { figureKinds } from './figures.js'
import type { Options } from './options.js'
import { node, results as resultsDirectory } from './places.js'
import { amount, type Results } from './results.js'

/** All tables and, for a full set, how far the targets were reached. In Markdown, which is also readable as text. */
export function textOf(results: Results, options: Options, missing: readonly string[]): string {
  const parts = [
    `${machine()}; ${options.rounds} rounds of ${options.seconds} s (after ${options.warmup} s). Medians, ±half of their range, ×ratio to the peer (median of the rounds’ ratios).`,
    ...missing.map(line => `**missing:** ${line}`),
    ...options.cells.map(
      cell => `**${cell.name}**: ${cell.title}; × is against ${cell.peer.name}\n\n${markdown(results.table(cell))}`,
    ),
  ]
  if (!options.quick) parts.push(`**What was to be reached**\n\n${markdown(targetTable(results, options.cells))}`)
  return `${parts.join('\n\n')}\n`
}

function targetTable(results: Results, cells: readonly Cell[]): string[][] {
  const measured = targets.filter(target => cells.some(cell => cell.name === target.cell))
  const rows = measured.map(target => {
    const { reached, met } = results.target(target)
    const { heading, better } = figureKinds[target.figure]
    return [
      target.cell,
      heading,
      target.against
        ? `${target.system.name} / ${target.itsCell === undefined ? '' : `${target.itsCell}: `}${target.against.name}`
        : target.system.name,
      `${better === 'lower' ? '≤' : '≥'} ${target.reach}`,
      reached === undefined ? '-' : amount(reached),
      reached === undefined ? 'not measured' : met ? 'reached' : '**missed**',
    ]
  })
  return [['cell', 'figure', 'of', 'to reach', 'measured', ''], ...rows]
}

function markdown([head = [], ...rows]: string[][]): string {
  const all = [head, ...rows]
  const widths = head.map((_, column) => Math.max(3, ...all.map(row => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, column) => (cells[column] ?? '').padEnd(width)).join(' | ')} |`
  const rule = `|${widths.map(width => '-'.repeat(width + 2)).join('|')}|`
  return [line(head), rule, ...rows.map(line)].join('\n')
}

/** Writes what was measured, every round of it, and returns the file's name. */
export function writeResults(results: Results, options: Options, missing: readonly string[], text: string): string {
  mkdirSync(resultsDirectory, { recursive: true })
  const base = join(resultsDirectory, new Date().toISOString().slice(0, 19).replaceAll(':', ''))
  const cells = options.cells.map(cell => ({
    name: cell.name,
    title: cell.title,
    peer: cell.peer.name,
    systems: Object.fromEntries(cell.systems.map(system => [system.name, results.runs(cell.name, system)])),
  }))
  const content = { machine: machine(), missing, failures: results.failures, cells }
  writeFileSync(`${base}.json`, `${JSON.stringify(content, null, 1)}\n`)
  writeFileSync(`${base}.md`, text)
  return `${base}.json`
}

/** Of the Node.js that mqway runs on. */
function nodeVersion(): string {
  return execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()
}

function machine(): string {
  const processors = cpus()
  const model = processors[0]?.model ?? 'unknown processor'
  const memory = Math.round(totalmem() / 2 ** 30)
  const [load = ''] = readFileSync('/proc/loadavg', 'utf8').split(' ')
  return `${processors.length} × ${model}, ${memory} GiB, Linux ${release()}, Node ${nodeVersion()}, load average ${load}`
}
