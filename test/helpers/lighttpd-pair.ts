import { mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { loadConfig } from '../../src/config/load.js'
import { startGateway } from '../../src/gateway/gateway.js'
import { importLighttpd } from '../../src/import/lighttpd/lighttpd.js'
import { freePorts } from './free-ports.js'
import type { Presented } from './handshake.js'
import { startLighttpd } from './lighttpd.js'

/** Both servers with one configuration, on separate ports. */
export interface Pair {
  readonly lighttpd: string
  readonly mqway: string
  /** A second port of each, for a socket block. */
  readonly others: { readonly lighttpd: string; readonly mqway: string }
  readonly needsDecision: boolean
  readonly yaml: string
}

/** Paths and addresses in the configurations of a test. */
export interface PairPlaces {
  /** Parent directory of the directories of the pairs. */
  readonly directory: string
  /** ROOT */
  readonly root: string
  /** BROKER */
  readonly brokerPort: number
}

/** Creates a document root with files that servers usually do not serve. */
export async function makeRoot(root: string): Promise<void> {
  for (const inside of ['dir', 'htm', 'private', '.well-known/acme-challenge']) {
    await mkdir(join(root, inside), { recursive: true })
  }
  const files = ['index.html', 'page.html', 'page.html~', 'x.php', 'db.inc', 'dir/index.html', 'htm/index.htm']
  for (const file of [...files, 'private/x.html', '.well-known/acme-challenge/token'])
    await writeFile(join(root, file), `this is ${file}`)
  await symlink(join(root, 'page.html'), join(root, 'link.html'))
}

/**
 * Starts lighttpd, and mqway with the configuration imported from it; both end with the test.
 *
 * @param text with the placeholders PORT, OTHER, BROKER, ROOT and HERE
 * @param files included files, by name
 */
export async function startPair(
  text: string,
  { directory, root, brokerPort }: PairPlaces,
  files: Record<string, string> = {},
): Promise<Pair> {
  const own = await mkdtemp(join(directory, 'pair-'))
  const [a = 0, b = 0, c = 0, d = 0] = await freePorts(4)
  const fill = (source: string, port: number, other: number): string =>
    source
      .replaceAll('PORT', String(port))
      .replaceAll('OTHER', String(other))
      .replaceAll('BROKER', String(brokerPort))
      .replaceAll('ROOT', root)
      .replaceAll('HERE', own)
  for (const [name, content] of Object.entries(files)) await writeFile(join(own, name), fill(content, 0, 0))
  const lighttpd = `http://127.0.0.1:${a}`
  const stop = await startLighttpd(fill(text, a, b), own, lighttpd)
  onTestFinished(stop)

  const { yaml, findings } = importLighttpd(fill(text, c, d), {
    fileName: 'l.conf',
    readInclude: pattern =>
      Object.entries(files)
        .filter(([name]) => pattern.includes('*') || pattern.endsWith(name))
        .map(([fileName, content]) => ({ fileName, text: fill(content, 0, 0) })),
    env: {},
    cwd: own,
  })
  const file = join(own, 'mqway.yaml')
  await writeFile(file, `${yaml}data: none\nlog: { level: silent }\n`)
  const { config } = loadConfig({ argv: ['--config', file], env: {}, cwd: own })
  const gateway = await startGateway(config, createLog(config.log), { cwd: own })
  onTestFinished(() => gateway.close(500))
  return {
    lighttpd,
    mqway: `http://127.0.0.1:${c}`,
    others: { lighttpd: `http://127.0.0.1:${b}`, mqway: `http://127.0.0.1:${d}` },
    yaml,
    // Any free port for this broker.
    needsDecision: findings.some(
      ({ needsDecision, message }) => needsDecision && !message.includes('look like an MQTT broker'),
    ),
  }
}

/** Status and body for the unchanged path. */
export function get(
  url: string,
  path: string,
  { headers = {}, localAddress }: Pick<Presented, 'headers' | 'localAddress'> = {},
): Promise<string> {
  const { hostname, port } = new URL(url)
  const from = localAddress === undefined ? {} : { localAddress }
  return new Promise((resolve, reject) => {
    const asked = request({ hostname, port, path, headers, agent: false, ...from }, async response => {
      let body = ''
      for await (const chunk of response) body += chunk
      const { statusCode = 0 } = response
      resolve(statusCode === 200 ? `200 ${body}` : String(statusCode))
    })
    asked.on('error', reject).end()
  })
}

/** Status of a handshake with the unchanged path. */
export function upgradeStatus(
  url: string,
  path: string,
  { headers = {}, localAddress, protocol = 'binary' }: Presented = {},
): Promise<number> {
  const { hostname, port } = new URL(url)
  const from = localAddress === undefined ? {} : { localAddress }
  const own = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'sec-websocket-protocol': protocol,
  }
  return new Promise((resolve, reject) => {
    const asked = request({ hostname, port, path, headers: { ...own, ...headers }, agent: false, ...from })
    asked.on('upgrade', ({ statusCode = 0 }, socket) => {
      socket.destroy()
      resolve(statusCode)
    })
    asked.on('response', response => {
      response.resume().on('end', () => resolve(response.statusCode ?? 0))
    })
    asked.on('error', reject).end()
  })
}
