import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type RunningProgram, run as runProgram } from '../helpers/processes.js'
import { mqway, type ServingProgram, serving } from '../helpers/program.js'

let directory: string
const programs: RunningProgram[] = []
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mqway-reload-'))
})
afterEach(async () => {
  await Promise.all(programs.splice(0).map(program => program.stop('SIGKILL')))
  rmSync(directory, { recursive: true, force: true })
})

const ports = 'data: none\nhttps: {port: off}\nmqtt: {port: off}\n'

function configure(text: string): void {
  writeFileSync(join(directory, 'mqway.yaml'), `${ports}${text}\n`)
}

async function serve(...args: string[]): Promise<ServingProgram> {
  const program = await serving(args, directory)
  programs.push(program)
  return program
}

interface Result {
  readonly code: number | null
  readonly lines: readonly string[]
  readonly errors: string
}

/** Runs a command to its end. */
async function run(...args: string[]): Promise<Result> {
  const program = mqway(args, directory)
  programs.push(program)
  const lines: string[] = []
  const code = await program.exited()
  for (;;) {
    const line = await program.line().catch(() => undefined)
    if (line === undefined) return { code, lines, errors: program.errors() }
    lines.push(line)
  }
}

test('check --diff says what a reload would change, and reload says what it has changed', async () => {
  const control = 'control: unix:control.sock'
  configure(`${control}\nhttp: {port: 0}\ndeny: ['~']`)
  const gateway = await serve()
  const statusOf = async (path: string): Promise<number> => (await fetch(gateway.url('http') + path)).status
  expect(statSync(join(directory, 'control.sock')).mode & 0o777).toBe(0o600)
  expect(await run('check', '--diff')).toMatchObject({ code: 0, lines: ['nothing differs'] })

  configure(`${control}\nhttp: {port: 8081}\ndeny: ['.bak']`)
  const restart = 'needs a restart: http.port: 0 -> 8081'
  const differences = ['a reload changes: deny: ["~"] -> [".bak"]', restart]
  expect(await run('check', '--diff')).toMatchObject({ code: 0, lines: differences })
  expect(await statusOf('/x.bak')).toBe(404)
  expect(await run('reload')).toMatchObject({ code: 0, lines: ['changed: deny: ["~"] -> [".bak"]', restart] })
  expect(await statusOf('/x.bak')).toBe(403)
  expect(await run('check', '--diff')).toMatchObject({ code: 0, lines: [restart] })
}, 60_000)

test('reload sends nothing for an invalid file, and reports what the gateway has refused', async () => {
  const control = 'control: unix:control.sock\nhttp: {port: 0}'
  const users = join(directory, 'users')
  writeFileSync(users, '')
  configure(`${control}\naccess: {htpasswd: users}`)
  const gateway = await serve()
  configure(`${control}\ndenny: ['~']`)
  expect(await run('reload')).toMatchObject({ code: 2, lines: [], errors: expect.stringContaining('denny') })
  configure(`${control}\naccess: {htpasswd: broken}`)
  writeFileSync(join(directory, 'broken'), 'no password file\n')
  const { code, errors } = await run('reload')
  expect([code, errors]).toEqual([2, expect.stringContaining('refused: the password file')])
  expect(String((await gateway.logged('nothing has changed'))['msg'])).toContain('broken')
}, 60_000)

test('reload says what is missing without control, and without a gateway', async () => {
  configure('http: {port: 0}')
  expect(await run('reload')).toMatchObject({ code: 2, errors: expect.stringContaining('control: is needed') })
  configure('http: {port: 0}\ncontrol: unix:control.sock')
  expect(await run('check', '--diff')).toMatchObject({ code: 1, errors: expect.stringContaining('no mqway answers') })
}, 60_000)

test('the socket of a killed process is replaced, and that of a running one is not', async () => {
  configure('http: {port: 0}\ncontrol: unix:control.sock')
  const listening = "require('node:net').createServer().listen('control.sock', () => console.log('listening'))"
  const killed = runProgram(process.execPath, ['-e', listening], { cwd: directory })
  programs.push(killed)
  await killed.line()
  await killed.stop('SIGKILL')
  await serve()
  const second = await run('serve')
  expect([second.code, second.errors]).toEqual([69, expect.stringContaining('control: unix:control.sock')])
  expect((await run('reload')).code).toBe(0)
}, 60_000)
