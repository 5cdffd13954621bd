import { execFile } from 'node:child_process'
import { link, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { hash } from 'bcrypt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'

const program = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

async function temporary(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-attack-'))
  onTestFinished(() => rm(directory, { recursive: true, force: true }))
  return directory
}

/** The path goes out as it is written here: a client that is no browser does not clean it up. */
function get(base: string, path: string): Promise<{ status: number; body: string }> {
  const { port } = new URL(base)
  return new Promise((resolve, reject) => {
    const options = { port, host: '127.0.0.1', path, localAddress: '127.0.0.4', agent: false }
    request(options, response => {
      let body = ''
      response.setEncoding('utf8').on('data', text => {
        body += text
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
      .on('error', reject)
      .end()
  })
}

describe('the program’s own files', () => {
  it.each(['serve', 'check'])(
    'keep mqway %s from a public directory that has them, with exit code 2',
    async command => {
      const cwd = await temporary()
      await writeFile(join(cwd, 'mqway.yaml'), 'http: { port: 0 }\nmqtt: { port: 0 }\nhttps: { port: 0 }\n')
      const { code, stderr } = await new Promise<{ code: number | null; stderr: string }>(resolve => {
        const child = execFile(
          process.execPath,
          [program, command, '--public', '.'],
          { cwd, env: {}, timeout: 5000 },
          (_error, _stdout, text) => resolve({ code: child.exitCode, stderr: text }),
        )
      })
      expect(code).toBe(2)
      expect(stderr.trimEnd().split('\n')).toHaveLength(1)
      for (const name of ['mqway.yaml', 'certs', 'data']) expect(stderr).toContain(name)
      expect(await readdir(cwd)).toEqual(['mqway.yaml'])
    },
  )

  it('are not served through links that were made later, nor under other spellings of their names', async () => {
    const directory = await temporary()
    const site = join(directory, 'site')
    await mkdir(site)
    await writeFile(join(site, 'index.html'), 'hello')
    await writeFile(join(site, 'twice.html'), 'twice')
    await link(join(site, 'twice.html'), join(site, 'again.html'))
    await writeFile(join(directory, 'users'), `alice:${await hash('right', 4)}\n`)
    const access = { htpasswd: 'users', rules: [{ to: 'anonymous' as const, publish: ['#'], subscribe: ['#'] }] }
    const gateway = await startAttackedGateway({ public: 'site', access, https: { port: 0 } }, { directory })
    onTestFinished(() => gateway.close())
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    expect((await get(gateway.http, '/')).body).toBe('hello')
    await bystander.rounds(5)

    const stored = (await readdir(join(directory, 'data'), { recursive: true, withFileTypes: true })).find(entry =>
      entry.isFile(),
    )
    const links: [name: string, target: string][] = [
      ['key', 'certs/localhost.key'],
      ['config', 'mqway.yaml'],
      ['people', 'users'],
      ['stored', join(stored?.parentPath ?? '', stored?.name ?? '').slice(directory.length + 1)],
    ]
    for (const [name, target] of links) {
      await link(join(directory, target), join(site, `${name}.txt`))
      await symlink(join('..', target), join(site, `${name}.link`))
    }
    await symlink('..', join(site, 'up'))
    const paths = links.flatMap(([name, target]) => [
      ...[`/${name}.txt`, `/${name}.link`, `/${name}%2etxt`, `/x/../${name}.txt`, `//${name}.txt`, `/%2e/${name}.txt`],
      ...[`/${target}`, `/../${target}`, `/%2e%2e/${target}`, `/..%2f${target}`, `/..%5c${target}`, `/up/${target}`],
      ...[
        `/${name}.txt.`,
        `/${name}.txt%20`,
        `/${name}.txt::$DATA`,
        `/${name.toUpperCase()}.TXT`,
        `/vendor/../${name}.txt`,
      ],
      ...[`/${name}.txt/`, `/${name}.txt%00`, `/${name}.txt;x`, `/up/${target.replaceAll('/', '%2f')}`],
    ])
    for (const path of paths) {
      const { status, body } = await get(gateway.http, path)
      expect({ path, status: status >= 400 }).toEqual({ path, status: true })
      expect(body).not.toMatch(/PRIVATE KEY|htpasswd|\$2b\$/)
    }
    expect(await get(gateway.http, '/again.html')).toEqual({ status: 200, body: 'twice' })
    await bystander.rounds(5)
    // The attack takes no time from anybody: nothing is lost.
    expectUndisturbed(await bystander.stop())
    expect(gateway.log.some(line => String(line['msg']).includes('a file of mqway itself'))).toBe(true)
  })
})
