import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { parse } from 'yaml'
import { mqway } from '../helpers/program.js'

let directory: string

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mqway-import-'))
  const made = directory
  onTestFinished(() => rm(made, { recursive: true }))
})

async function write(files: Record<string, string>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(directory, name)), { recursive: true })
    await writeFile(join(directory, name), text)
  }
}

/** Runs `mqway import` in the directory of the test. */
async function run(...args: string[]): Promise<{ code: number | null; yaml: Record<string, unknown>; errors: string }> {
  const running = mqway(['import', ...args], directory)
  let output = ''
  running.child.stdout.on('data', chunk => {
    output += chunk
  })
  const code = await running.exited()
  return { code, yaml: parse(output) ?? {}, errors: running.errors() }
}

const tunnel =
  'wstunnel.server = ( "/mqtt" => ( ( "host" => "127.0.0.1", "port" => 1883 ) ) )\nwstunnel.frame-type = "binary"\n'

describe('mqway import', () => {
  it('ends with 0 where mqway does the same, and with 3 where somebody has to look at a line', async () => {
    await write({ 'same.conf': tunnel, 'other.conf': `${tunnel}magnet.attract-raw-url-to = ( "/x.lua" )` })
    expect((await run('same.conf')).code).toBe(0)
    const other = await run('other.conf')
    expect([other.code, other.yaml['tunnels'], other.yaml['anonymous']]).toEqual([3, [], undefined])
    expect(other.errors).toContain('other.conf:3: magnet.attract-raw-url-to is not carried over')
  })

  it('ends with 2 and no configuration for a file without a tunnel, one that is missing, and one that is none', async () => {
    await write({ 'files.conf': 'server.document-root = "/srv"\n', 'broken.conf': 'server.port = \n' })
    for (const [file, message] of [
      ['files.conf', 'files.conf:1:1: there is no tunnel in it'],
      ['broken.conf', 'broken.conf:2:1: expected a value'],
      ['gone.conf', 'gone.conf'],
    ] as const) {
      const { code, yaml, errors } = await run(file)
      expect([file, code, yaml]).toEqual([file, 2, {}])
      expect(errors).toContain(message)
    }
  })

  it.each([
    ['d/*.conf', ['/b', '/c']],
    ['d*/x.conf', ['/x1', '/x2']],
    ['{d1,d2,d3}/x.conf', ['/x1', '/x2']],
    ['d[1]/x.conf', ['/x1']],
    ['gone/*.conf', []],
  ])('reads the files of include "%s" as lighttpd does', async (pattern, included) => {
    const deny = (path: string): string => `url.access-deny += ( "${path}" )\n`
    await write({
      'l.conf': `url.access-deny = ( "/first" )\ninclude "${pattern}"\n${tunnel}`,
      'd/c.conf': deny('/c'),
      'd/b.conf': deny('/b'),
      'd/.hidden.conf': deny('/hidden'),
      'd1/x.conf': deny('/x1'),
      'd2/x.conf': deny('/x2'),
    })
    expect((await run('l.conf')).yaml['deny']).toEqual(['/first', ...included])
  })

  it.each(['d', 'gone.conf', 'd/*'])('refuses include "%s", as lighttpd does', async pattern => {
    await write({ 'l.conf': `include "${pattern}"\n${tunnel}`, 'd/inner/x.conf': '' })
    expect((await run('l.conf')).code).toBe(2)
  })
})
