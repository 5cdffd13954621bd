import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'

const root = fileURLToPath(new URL('..', import.meta.url))
const program = join(root, 'dist/cli.js')
const fixtures = join(root, 'test/fixtures/lighttpd')
const directory = mkdtempSync(join(tmpdir(), 'mqway-cli-'))

// The program as it is installed, which `npm test` builds before anything else.
beforeAll(() => {
  if (!existsSync(program)) throw new Error('dist/cli.js is missing: npm run build')
})
afterAll(() => rmSync(directory, { recursive: true }))

interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs the program as it is installed, in an empty directory, without any MQWAY_ variable but those given. */
function mqway(args: readonly string[], env: NodeJS.ProcessEnv = {}, cwd = directory): Promise<Result> {
  return new Promise(resolve => {
    const child = execFile(process.execPath, [program, ...args], { cwd, env }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr })
    })
  })
}

function file(name: string, text: string): string {
  const path = join(directory, name)
  writeFileSync(path, text)
  return path
}

describe('mqway', () => {
  test('--help lists the commands that exist and every flag', async () => {
    const { code, stdout } = await mqway(['--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(
      /mqway \[serve\].*\n.*mqway check.*\n.*mqway reload.*\n.*mqway import LIGHTTPD\.CONF.*\n.*mqway supervisor.*\n.*mqway passwd FILE USER.*\n.*mqway token --user USER/,
    )
    expect(stdout).toContain('--log-format FORMAT')
  })

  test.each(['serve', 'check', 'import', 'supervisor', 'passwd', 'token'])(
    '%s -h explains that command alone',
    async command => {
      const { code, stdout } = await mqway([command, '-h'])
      expect(code).toBe(0)
      expect(stdout).toMatch(new RegExp(`^mqway \\[?${command}`))
    },
  )

  test('--version prints the version of package.json', async () => {
    const { code, stdout } = await mqway(['--version'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  })

  test.each([
    ['chek', 'mqway: chek is not a command; did you mean check? See mqway --help\n'],
    ['constructor', 'mqway: constructor is not a command'],
  ])('%s is no command', async (name, message) => {
    const { code, stderr } = await mqway([name])
    expect(code).toBe(2)
    expect(stderr).toContain(message)
  })

  test('help and -h are --help', async () => {
    const [written, ...others] = await Promise.all(['--help', 'help', '-h'].map(name => mqway([name])))
    for (const other of others) expect(other).toEqual(written)
  })

  test('help CHECK is check --help', async () => {
    expect(await mqway(['help', 'check'])).toEqual(await mqway(['check', '--help']))
  })

  test('version and -v are --version', async () => {
    const [written, ...others] = await Promise.all(['--version', 'version', '-v'].map(name => mqway([name])))
    for (const other of others) expect(other).toEqual(written)
  })

  test('no command is suggested for a word that is like none', async () => {
    const { code, stderr } = await mqway(['status'])
    expect([code, stderr]).toEqual([2, 'mqway: status is not a command. See mqway --help\n'])
  })

  test('options may stand before the command', async () => {
    const { code, stdout } = await mqway(['--data', 'none', '--log-level=warn', 'check', '--http-port', '81'])
    expect(code).toBe(0)
    expect(parse(stdout)).toMatchObject({ http: { port: 81 }, data: 'none', log: { level: 'warn' } })
    expect(await mqway(['--data', 'none', 'serve', '--http-port', 'no'])).toEqual(
      await mqway(['serve', '--data', 'none', '--http-port', 'no']),
    )
  })

  test('a port beyond 65535 is refused in our words', async () => {
    const { code, stderr } = await mqway(['check', '--http-port', '70000'])
    expect(code).toBe(2)
    expect(stderr).not.toMatch(/Too big|expected/)
    expect(stderr).toContain('65535')
  })

  test('import says that a file is missing, or a directory', async () => {
    const missing = await mqway(['import', '/nonexist'])
    expect([missing.code, missing.stderr]).toEqual([2, 'mqway import: /nonexist: there is no such file\n'])
    expect((await mqway(['import', directory])).stderr).toContain('this is a directory')
  })

  test('serve is the command when there is none, and refuses a wrong configuration', async () => {
    const { code, stdout, stderr } = await mqway(['--http-prot', '80', '--log-level', 'loud'])
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr.split('\n')).toEqual([
      '--http-prot: is not an option; did you mean --http-port?',
      '--log-level: log.level: "loud" must be one of trace, debug, info, warn, error, fatal, silent',
      '',
    ])
  })
})

describe('mqway check', () => {
  test('prints a configuration that prints as itself', async () => {
    const first = await mqway(['check', '--http-port', '81'], { MQWAY_DATA: 'none' })
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(parse(first.stdout)).toMatchObject({ http: { port: 81 }, data: 'none', limits: { headerSize: '16KiB' } })
    expect(await mqway(['check', '--config', file('printed.yaml', first.stdout)])).toEqual(first)
  })

  test('prints no password', async () => {
    const path = file('secret.yaml', 'broker: {url: mqtt://b, username: u, password: hush}')
    const { code, stdout } = await mqway(['check', '--config', path])
    expect(code).toBe(0)
    expect(stdout).toContain('password: "[redacted]"')
    expect(stdout).not.toContain('hush')
  })

  test('names every mistake on standard error, and exits with 2', async () => {
    const path = file('wrong.yaml', 'http: {port: no}\nhost: 0.0.0.0\n')
    const { code, stdout, stderr } = await mqway(['check', '--config', path])
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toContain('wrong.yaml:1: http.port: "no" must be a port')
    expect(stderr).toContain('wrong.yaml:2: host: "0.0.0.0" lets other machines connect')
  })

  test('warns of what is risky on standard error, and exits with 0', async () => {
    const path = file('risky.yaml', 'host: 0.0.0.0\nanonymous: true\nhttps: {port: off}\n')
    const { code, stdout, stderr } = await mqway(['check', '--config', path])
    expect(code).toBe(0)
    expect(stderr).toBe(
      'warning: anonymous: clients on other machines can connect without credentials (http, mqtt), and publish and read every topic\n',
    )
    expect(parse(stdout)).toMatchObject({ anonymous: true })
  })

  test('does not mind a reader that goes away', async () => {
    const child = spawn(process.execPath, [program, 'check'], { cwd: directory, env: {} })
    child.stdout.destroy()
    const errors: Buffer[] = []
    child.stderr.on('data', chunk => errors.push(chunk))
    expect(await once(child, 'close')).toEqual([0, null])
    expect(Buffer.concat(errors).toString()).toBe('')
  })
})

describe('mqway import', () => {
  test('imports the configuration of the article: the file to standard output, warnings to standard error', async () => {
    const { code, stdout, stderr } = await mqway(['import', join(fixtures, 'article.conf')])
    expect(code).toBe(0)
    expect(parse(stdout)).toMatchObject({ broker: 'mqtt://127.0.0.1:1883', http: { port: 80 }, https: { port: 443 } })
    expect(stderr).toContain('article.conf:17: server.pid-file is left out')
  })

  test('what it prints is a configuration, once the files that it names are there', async () => {
    const pem = file('both.pem', '')
    const conf = file(
      'local.conf',
      `server.document-root = "${fixtures}"\n$SERVER["socket"] == ":8443" { ssl.engine = "enable" ssl.pemfile = "${pem}" }
      websocket.server = ( "/mqtt" => ( "host" => "127.0.0.1", "port" => "1883", "type" => "bin" ) )`,
    )
    const { stdout } = await mqway(['import', conf])
    const checked = await mqway(['check', '--config', file('imported.yaml', stdout)])
    expect(checked.code).toBe(0)
    expect(checked.stderr.split('\n')).toEqual([
      'warning: anonymous: clients on other machines can connect without credentials (http, https)',
      `warning: https.key: every user of this machine can read ${pem}; chmod o= ${pem}`,
      '',
    ])
    expect(parse(checked.stdout)).toMatchObject({ https: { port: 8443, key: pem }, mqtt: { port: 'off' } })
  })

  test('reads the files that are included from beside the file, by pattern', async () => {
    const { code, stdout, stderr } = await mqway(['import', 'wstunnel.conf'], {}, fixtures)
    expect(code).toBe(3)
    expect(stderr).toContain('conf.d/10-wstunnel.conf:4: wstunnel.balance = "sticky" is not carried over')
    const config = parse(stdout)
    expect(config).toMatchObject({
      host: '127.0.0.1',
      http: { port: 8000 },
      https: { port: 8443, cert: '/etc/ssl/site.crt', key: '/etc/ssl/site.key' },
      public: '/srv/www',
    })
    expect(config.tunnels).toMatchObject([
      { pathPrefix: '/old', hosts: ['old.example'] },
      {
        pathPrefix: '/mqtt',
        hosts: [expect.stringMatching(/old.*www/)],
        broker: { url: ['mqtt://10.0.0.1:1883', 'mqtt://[::1]:1883'], balance: 'least-connections' },
        pingInterval: '15s',
        forceSubprotocol: 'mqtt',
      },
      { pathSuffix: '.sock', broker: { url: 'unix:/run/mosquitto.sock' } },
      { pathPrefix: '/local', broker: { url: 'unix:/run/other.sock' } },
      { pathPrefix: '/web', broker: { url: 'mqtt://127.0.0.1:80' } },
    ])
  })

  test('a file that cannot be parsed is exit code 2, with file, line, column and what was expected', async () => {
    const conf = file('broken.conf', 'server.port = 80\nserver.bind "x"\n')
    const { code, stdout, stderr } = await mqway(['import', conf])
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toBe(`${conf}:2:13: expected = after server.bind, found "x"\n`)
  })

  test.each([[[]], [['a', 'b']], [['--config', 'a']], [['no-such-file']]])('%j is exit code 2', async args => {
    const { code, stderr } = await mqway(['import', ...args])
    expect(code).toBe(2)
    expect(stderr).toMatch(/^mqway import: (needs one lighttpd\.conf|no-such-file: there is no such file)/)
  })
})
