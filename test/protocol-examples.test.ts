import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openApiOperations, operations } from '../src/transports/openapi.js'
import { startTestGateway, type TestGateway } from './helpers/gateway.js'
import { describeWith } from './helpers/requires.js'

/** A command of PROTOCOL.md, and what it says that it answers. */
interface Example {
  readonly line: number
  readonly command: string
  readonly shown: string
}

const protocol = readFileSync(new URL('../PROTOCOL.md', import.meta.url), 'utf8')

/** Where the gateway of the examples is. */
const place = 'http://localhost:8080'

/** The blocks of `sh` with curl below a heading, each with the block right after it. */
function examplesBelow(heading: string): Example[] {
  const begin = protocol.indexOf(`\n## ${heading}\n`)
  const end = protocol.indexOf('\n## ', begin + 1)
  const section = protocol.slice(begin, end === -1 ? undefined : end)
  const found = section.matchAll(/\n```sh\n([\s\S]*?)\n```\n(?:\n```(?!sh)\w*\n([\s\S]*?)\n```\n)?/g)
  return [...found].flatMap(({ index, 1: command = '', 2: shown = '' }) => {
    const line = protocol.slice(0, begin + index).split('\n').length + 2
    return command.includes('curl') ? [{ line, command, shown }] : []
  })
}

/*
 * What is shown is compared as it is, but for what differs each time: times may be any, `…` is anything, and ids, names of
 * connections and tickets are others, but the same ones wherever the same one is shown, also in later commands.
 */

const time = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`
const eventId = String.raw`\b[0-9a-z]{15}-\d+\b`
const uuid = String.raw`\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b`
const random = String.raw`(?<![\w-])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{22}(?:[\w-]{21})?(?![\w-])`
const anything = String.raw`[\s\S]*?`
const varying = new RegExp(`(${time})|(${eventId})|(${uuid})|(${random})|(…)`, 'g')

/** Takes the white space out of JSON, where it is not in a string. */
function compact(json: string): string {
  return json.replace(/("(?:[^"\\]|\\.)*")|\s+/g, (_, text?: string) => text ?? '')
}

/** A pattern for what is shown, with the texts that its groups stand for. */
function patternOf(shown: string, isPart: boolean): { pattern: RegExp; names: readonly string[] } {
  const names: string[] = []
  let source = ''
  let from = 0
  for (const match of shown.matchAll(varying)) {
    source += quote(shown.slice(from, match.index))
    from = match.index + match[0].length
    const [text, isTime, isId, isUuid, isRandom] = match
    if (isTime !== undefined) source += time
    else if (isId === undefined && isUuid === undefined && isRandom === undefined) source += anything
    else if (names.includes(text)) source += `\\${names.indexOf(text) + 1}`
    else {
      names.push(text)
      source += `(${isId !== undefined ? eventId : isUuid !== undefined ? uuid : '[\\w-]+'})`
    }
  }
  return { pattern: new RegExp(`^${source}${quote(shown.slice(from))}${isPart ? '' : '$'}`), names }
}

function quote(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}

/** Splits off the head that `curl -i` prints. */
function split(output: string): { head: string[]; body: string } {
  const text = output.replaceAll('\r\n', '\n')
  if (!text.startsWith('HTTP/')) return { head: [], body: text }
  const [head = '', ...rest] = text.split('\n\n')
  return { head: head.toLowerCase().split('\n'), body: rest.join('\n\n') }
}

describeWith(['curl'], 'the examples of PROTOCOL.md', () => {
  let gateway: TestGateway
  /** What stands in the document -> what it is here. */
  const known = new Map<string, string>()
  beforeAll(async () => {
    gateway = await startTestGateway({ https: { port: 'off' }, mqtt: { port: 'off' } })
  })
  /** Streams stay open, as in a terminal beside, so that others can be about them. */
  const running = new Set<ChildProcess>()
  afterAll(async () => {
    // With their curl.
    for (const { pid } of running) if (pid !== undefined) process.kill(-pid)
    await gateway.close()
  })

  /** Whether what was printed is what is shown; what is shown of a stream may be its beginning. */
  const matches = (output: string, shown: string, isOver: boolean): boolean => {
    const [got, wanted] = [split(output), split(shown)]
    if (!wanted.head.every(line => got.head.includes(line))) return false
    const isJson = /^\s*[{[]/.test(wanted.body)
    const [text, model] = isJson
      ? [compact(got.body), compact(wanted.body)]
      : [got.body.trimEnd(), wanted.body.trimEnd()]
    const { pattern, names } = patternOf(model, !isOver)
    const [found, ...groups] = pattern.exec(text) ?? []
    if (found === undefined) return false
    if (names.some((name, at) => known.has(name) && known.get(name) !== groups[at])) return false
    for (const [at, name] of names.entries()) known.set(name, groups[at] ?? '')
    return true
  }

  /** Resolves with what was printed: all, or of a stream, which does not end, as much as is shown. */
  const run = ({ command, shown }: Example, isStream: boolean): Promise<string> =>
    new Promise((resolve, reject) => {
      let here = command.replaceAll(place, gateway.urls.http)
      for (const [name, value] of known) here = here.replace(new RegExp(`${quote(name)}(?!\\w)`, 'g'), value)
      const shell = spawn('bash', ['-c', here], { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
      running.add(shell)
      let output = ''
      const tooLong = setTimeout(() => resolve(output), 10_000)
      shell.on('error', reject)
      shell.stdout.on('data', (chunk: Buffer) => {
        output += chunk.toString()
        if (isStream && matches(output, shown, false)) resolve(output)
      })
      shell.on('close', () => {
        clearTimeout(tooLong)
        running.delete(shell)
        resolve(output)
      })
    })

  const examples = ['Push over HTTP', 'RRR'].flatMap(examplesBelow)

  it.each(examples)('are true: line $line', async example => {
    const isStream = / -\w*N/.test(example.command)
    const output = await run(example, isStream)
    // So that a failure shows both.
    const seen = matches(output, example.shown, !isStream) ? example.shown : output
    expect(seen).toBe(example.shown)
  })

  it('have every endpoint', () => {
    const commands = examples.map(({ command }) => command)
    const missing = [...operations, ...openApiOperations].filter(({ path }) => {
      const [before = ''] = path.split('{')
      return !commands.some(command => command.includes(`${place}${before}`))
    })
    expect(missing.map(({ path }) => path)).toEqual([])
  })
})
