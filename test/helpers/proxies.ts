import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { parse } from 'yaml'
import type { ConfigInput } from '../../src/config/schema.js'
import { freePorts } from './free-ports.js'
import { run } from './processes.js'
import { eventually } from './wait.js'

const operations = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8')

/** The blocks of a section of docs/operations.md: the proxy's configuration, and mqway's. */
function recipe(name: string): { readonly proxy: string; readonly mqway: ConfigInput } {
  const [, section = ''] = new RegExp(`\n## Behind ${name}\n([^]*?)\n## `).exec(operations) ?? []
  const [proxy = '', yaml = ''] = [...section.matchAll(/```\w+\n([\s\S]*?)```/g)].map(([, block]) => block)
  return { proxy, mqway: parse(yaml) }
}

export const behindHaproxy = recipe('haproxy')
export const behindCaddy = recipe('Caddy')

/** Ports of a gateway on loopback. */
export interface GatewayPorts {
  readonly http: number
  readonly mqtt: number
}

/** A private directory, and in it a certificate for localhost with its key in one file; removed after the test. */
async function makeDirectory(): Promise<{ directory: string; pem: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-proxy-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  const [key, cert, pem] = ['key.pem', 'cert.pem', 'both.pem'].map(name => join(directory, name)) as [
    string,
    string,
    string,
  ]
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2']
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' })
  await writeFile(pem, readFileSync(cert, 'utf8') + readFileSync(key, 'utf8'))
  return { directory, pem }
}

/** Starts a program that listens at a port of loopback; stopped after the test. */
async function startListening(
  command: string,
  args: readonly string[],
  port: number,
  env = process.env,
): Promise<void> {
  const program = run(command, args, { env })
  onTestFinished(() => program.stop('SIGKILL'))
  await eventually(async () => {
    if (program.child.exitCode !== null) throw new Error(`${command} ended: ${program.errors()}`)
    return new Promise<boolean>(resolve => {
      const socket = connect(port, '127.0.0.1')
      const settle = (isOpen: boolean) => () => {
        socket.destroy()
        resolve(isOpen)
      }
      socket.on('connect', settle(true)).on('error', settle(false))
    })
  })
}

/** haproxy with the configuration of docs/operations.md, or a changed one, on free ports of loopback. */
export async function startHaproxy(
  gateway: GatewayPorts,
  configuration = behindHaproxy.proxy,
): Promise<{ readonly https: string; readonly mqttsPort: number }> {
  const [https = 0, mqttsPort = 0] = await freePorts(2)
  const { directory, pem } = await makeDirectory()
  const file = join(directory, 'haproxy.cfg')
  const text = configuration
    .replaceAll('bind :443 ', `bind 127.0.0.1:${https} `)
    .replaceAll('bind :8883 ', `bind 127.0.0.1:${mqttsPort} `)
    .replaceAll('/etc/haproxy/www.example.org.pem', pem)
    .replaceAll('127.0.0.1:8080', `127.0.0.1:${gateway.http}`)
    .replaceAll('127.0.0.1:1883', `127.0.0.1:${gateway.mqtt}`)
  await writeFile(file, text)
  await startListening('/usr/sbin/haproxy', ['-db', '-f', file], https)
  return { https: `https://localhost:${https}`, mqttsPort }
}

/** Caddy with the configuration of docs/operations.md on a free port of loopback, with a certificate that is there already. */
export async function startCaddy(gateway: GatewayPorts): Promise<{ readonly https: string }> {
  const [https = 0, admin = 0] = await freePorts(2)
  const { directory, pem } = await makeDirectory()
  const file = join(directory, 'Caddyfile')
  const text = behindCaddy.proxy
    .replace('www.example.org {', `https://localhost:${https} {\n  bind 127.0.0.1\n  tls ${pem} ${pem}`)
    .replace('127.0.0.1:8080', `127.0.0.1:${gateway.http}`)
  await writeFile(file, `{\n  admin localhost:${admin}\n  auto_https disable_redirects\n}\n${text}`)
  const args = ['run', '--adapter', 'caddyfile', '--config', file]
  await startListening('caddy', args, https, {
    ...process.env,
    HOME: directory,
    XDG_DATA_HOME: directory,
    XDG_CONFIG_HOME: directory,
  })
  return { https: `https://localhost:${https}` }
}
