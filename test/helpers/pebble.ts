import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { get } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { writeCertificate } from '../server/rig.js'
import { freePorts } from './free-ports.js'
import { type RunningProgram, run } from './processes.js'
import { eventually } from './wait.js'

/** Debian's Pebble, the test server of Let's Encrypt, with a DNS server for which every name is at 127.0.0.1. */
export interface Pebble {
  /** URL of its directory. */
  readonly directory: string
  /** File with the CA of its own certificate. */
  readonly ca: string
  /** Where it checks names. */
  readonly httpPort: number
  readonly tlsPort: number
  /** Has a name be at this address. */
  move(name: string, address: string): Promise<void>
  /** The CA that signs the certificates which it issues (PEM); another one after each start. */
  root(): Promise<string>
  /** Ends it, so that it refuses connections. */
  stop(): Promise<void>
  /** Starts it again at the same ports, without the accounts and orders that it had. */
  start(): Promise<void>
  /** Ends it and its DNS server. */
  close(): Promise<void>
}

/**
 * Starts it on free ports of loopback. It refuses one in twenty valid nonces. To be closed by the caller.
 *
 * @param validity seconds for which its certificates are valid
 */
export async function startPebble({ validity = 90 * 86_400 } = {}): Promise<Pebble> {
  const [port = 0, management = 0, httpPort = 0, tlsPort = 0, dns = 0, dnsManagement = 0] = await freePorts(6)
  const directory = await mkdtemp(join(tmpdir(), 'pebble-'))
  const { cert: certificate, key: privateKey } = await writeCertificate(directory)
  const config = join(directory, 'pebble.json')
  const addresses = {
    listenAddress: `127.0.0.1:${port}`,
    managementListenAddress: `127.0.0.1:${management}`,
  }
  const pebble = { ...addresses, certificate, privateKey, httpPort, tlsPort, certificateValidityPeriod: validity }
  await writeFile(config, JSON.stringify({ pebble }))
  const manage = (path: string, body: object): Promise<Response> =>
    fetch(`http://127.0.0.1:${dnsManagement}/${path}`, { method: 'POST', body: JSON.stringify(body) })
  const listens = ['-dns01', `127.0.0.1:${dns}`, '-management', `127.0.0.1:${dnsManagement}`]
  const names = run('pebble-challtestsrv', [
    ...listens,
    ...['-http01', '', '-https01', '', '-tlsalpn01', '', '-defaultIPv4', '127.0.0.1', '-defaultIPv6', ''],
  ])
  const env = {
    ...process.env,
    PEBBLE_VA_NOSLEEP: '1',
    PEBBLE_AUTHZREUSE: '0',
  }
  let server: RunningProgram | undefined
  const start = async (): Promise<void> => {
    server = run('pebble', ['-config', config, '-dnsserver', `127.0.0.1:${dns}`, '-strict'], { env })
    while (!(await server.line()).includes('ACME directory available')) {}
    await eventually(() =>
      fetchText(`https://localhost:${port}/dir`).then(
        () => true,
        () => false,
      ),
    )
  }
  const fetchText = (url: string): Promise<string> =>
    new Promise((resolve, reject) => {
      get(url, { ca: readFileSync(certificate) }, response => resolve(text(response))).once('error', reject)
    })
  await start()
  await eventually(() =>
    manage('clear-a', { host: 'nobody.example' }).then(
      () => true,
      () => false,
    ),
  )
  return {
    directory: `https://localhost:${port}/dir`,
    ca: certificate,
    httpPort,
    tlsPort,
    move: async (host, address) => {
      await manage('clear-a', { host })
      await manage('add-a', { host, addresses: [address] })
    },
    root: () => fetchText(`https://localhost:${management}/roots/0`),
    start,
    stop: async () => server?.stop('SIGKILL'),
    close: async () => {
      await Promise.all([server?.stop('SIGKILL'), names.stop('SIGKILL')])
      await rm(directory, { recursive: true })
    },
  }
}
