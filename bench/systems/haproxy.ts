import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { accepts, freePort, start } from '../children.js'
import { missingOf, type System } from './system.js'

/** haproxy as a plain relay, of TCP or of what is in TLS: no WebSocket, which makes it the limit and not a peer. */
export const haproxy: System = {
  name: 'haproxy (TCP relay)',
  speaks: 'relay',
  hasTls: true,
  missing: () => missingOf('haproxy'),

  async start({ directory, tls, certificate, upstreamPort }) {
    const port = await freePort()
    const pem = join(directory, 'both.pem')
    writeFileSync(pem, readFileSync(certificate.cert, 'utf8') + readFileSync(certificate.key, 'utf8'))
    const lines = [
      'global',
      '  maxconn 8000',
      '  nbthread 1',
      'defaults',
      '  mode tcp',
      '  timeout connect 5s',
      '  timeout client 5m',
      '  timeout server 5m',
      'listen relay',
      `  bind 127.0.0.1:${port}${tls ? ` ssl crt ${pem}` : ''}`,
      `  server upstream 127.0.0.1:${upstreamPort}`,
    ]
    const file = join(directory, 'haproxy.cfg')
    writeFileSync(file, `${lines.join('\n')}\n`)
    const child = start('haproxy', ['-db', '-f', file])
    await accepts(port, child)
    return { port, pids: [child.pid], stop: () => child.stop() }
  },
}

/** No system at all: the load generator against the upstream shows what both could do. */
export const direct: System = {
  name: 'direct (none)',
  speaks: 'relay',
  hasTls: false,
  missing: () => undefined,
  start: async ({ upstreamPort }) => ({ port: upstreamPort, pids: [], stop: async () => {} }),
}
