import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { generate } from 'selfsigned'
import { onTestFinished } from 'vitest'
import { compileClientResolver } from '../../src/access/client-address.js'
import { ConnectionLimits } from '../../src/access/limits.js'
import { UserLimits } from '../../src/access/user-limits.js'
import type { Logger } from '../../src/base/log.js'
import { createMetrics, type Metrics } from '../../src/base/metrics.js'
import type { CertificateFiles } from '../../src/server/certificate.js'
import type { Listener } from '../../src/server/listener.js'
import { UpgradeRouter, type UpgradeRouterOptions } from '../../src/server/upgrade.js'

/** A line of the log: pino's fields. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly level: number; readonly msg: string }

/** A logger whose lines a test can read, and wait for. */
export function recordingLog() {
  const lines: LogLine[] = []
  const waiting = new Set<() => void>()
  const log: Logger = pino(
    { level: 'trace', base: null },
    {
      write: (text: string) => {
        lines.push(JSON.parse(text))
        for (const look of waiting) look()
      },
    },
  )
  const line = (message: RegExp): Promise<LogLine> =>
    new Promise(resolve => {
      const look = (): void => {
        const found = lines.find(({ msg }) => message.test(msg))
        if (found === undefined) return
        waiting.delete(look)
        lines.splice(lines.indexOf(found), 1)
        resolve(found)
      }
      waiting.add(look)
      look()
    })
  return { log, lines, /** The first line that matches, now or later; each is given out once. */ line }
}

/** Limits of requests that no test reaches by mistake. */
export const requestLimits = {
  headerSize: 16 * 1024,
  handshakeTimeout: 10_000,
  bodySize: 64 * 1024,
  bodyTimeout: 10_000,
  urlLength: 8192,
}

/** Metrics that go with the test. */
export function testMetrics(): Metrics {
  const metrics = createMetrics()
  onTestFinished(() => metrics.close())
  return metrics
}

/** How often a reason was counted as a refusal. */
export async function refusals(metrics: Metrics, reason: string): Promise<number> {
  const metric = await metrics.registry.getSingleMetric('mqway_refusals_total')?.get()
  return metric?.values.find(({ labels }) => labels['reason'] === reason)?.value ?? Number.NaN
}

/** A directory that goes with the test. */
export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-listen-'))
  onTestFinished(() => rm(directory, { recursive: true, force: true }))
  return directory
}

/** Closes a listener with the test, whatever is still connected. */
export function closing<T extends Listener>(listener: T): T {
  onTestFinished(async () => {
    const closed = listener.close()
    listener.destroyConnections()
    await closed
  })
  return listener
}

/** The TCP port of a listener's first address. */
export function portOf(listener: Listener): number {
  const [address] = listener.addresses
  if (address === undefined || !('port' in address)) throw new Error('not a TCP listener')
  return address.port
}

/** Connects to a port of loopback; destroyed with the test. */
export async function connected(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  return socket
}

/** All that arrives until the other side has ended, as text. */
export async function received(socket: NodeJS.ReadableStream): Promise<string> {
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  await once(socket, 'close')
  return text
}

/** Sends bytes and gives back all that comes until the other side has ended; ends its own side only then. */
export async function exchange(port: number, bytes: string | Buffer): Promise<string> {
  const socket = await connected(port)
  socket.once('end', () => socket.end())
  socket.write(bytes)
  return received(socket)
}

/** A certificate and key in files, signed by itself. */
export async function writeCertificate(
  directory: string,
  options: { name?: string; validFor?: number; files?: string } = {},
): Promise<CertificateFiles & { pem: { cert: string; key: string } }> {
  const { name = 'localhost', validFor = 100 * 86_400_000, files = 'server' } = options
  const made = await generate([{ name: 'commonName', value: name }], {
    keyType: 'ec',
    algorithm: 'sha256',
    notBeforeDate: new Date(Date.now() - 2 * 86_400_000),
    notAfterDate: new Date(Date.now() + validFor),
    extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: name }] }],
  })
  const cert = join(directory, `${files}.crt`)
  const key = join(directory, `${files}.key`)
  const pem = { cert: `${made.cert}\n`, key: made.private }
  await writeFile(cert, pem.cert)
  await writeFile(key, pem.key)
  return { cert, key, pem }
}

/** A router of handshakes with room for many, and the parts it was made with. */
export function testRouter(options: Partial<UpgradeRouterOptions> = {}) {
  const metrics = options.metrics ?? testMetrics()
  const recording = recordingLog()
  const limits = options.limits ?? new ConnectionLimits({ connections: 100, connectionsPerAddress: 100 })
  let connections = 0
  const router = new UpgradeRouter({
    routes: [],
    users: new UserLimits('off'),
    urlLength: 8192,
    resolveClient: compileClientResolver([]),
    nextId: () => String(++connections),
    log: recording.log,
    ...options,
    limits,
    metrics,
  })
  return { router, limits, metrics, ...recording }
}

/** A port of loopback that somebody listens on. */
export function takenPort(address: string | AddressInfo | null): number {
  if (address === null || typeof address === 'string') throw new Error('not a TCP server')
  return address.port
}
