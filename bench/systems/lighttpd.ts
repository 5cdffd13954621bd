import { randomBytes } from 'node:crypto'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { accepts, freePort, start } from '../children.js'
import { missingOf, type System } from './system.js'

const modules = '/usr/lib/lighttpd'

/** Debian's lighttpd: mod_wstunnel, and mod_openssl for TLS. */
export const lighttpd: System = {
  name: 'lighttpd',
  speaks: 'websocket',
  hasTls: true,
  missing: () => missingOf('lighttpd', `${modules}/mod_wstunnel.so`, `${modules}/mod_openssl.so`),

  async start({ directory, tls, certificate, upstreamPort, restart }) {
    const port = restart?.port ?? (await freePort())
    const lines = [
      `server.modules = ( "mod_wstunnel"${tls ? ', "mod_openssl"' : ''} )`,
      `server.document-root = "${directory}"`,
      'server.bind = "127.0.0.1"',
      `server.port = ${port}`,
      // 5,000 tunnels are 10,000 descriptors.
      'server.max-fds = 16384',
      'server.max-connections = 8192',
      // As many as mqway has: the kernel drops what comes beyond, and clients try again after a second.
      'server.listen-backlog = 4096',
      `wstunnel.server = ( "/mqtt" => ( ( "host" => "127.0.0.1", "port" => ${upstreamPort} ) ) )`,
      'wstunnel.frame-type = "binary"',
    ]
    if (tls) {
      lines.push('ssl.engine = "enable"', `ssl.pemfile = "${certificate.cert}"`, `ssl.privkey = "${certificate.key}"`)
    }
    if (tls && restart) lines.push(`ssl.stek-file = "${ticketKey(directory)}"`)
    const file = join(directory, 'lighttpd.conf')
    writeFileSync(file, `${lines.join('\n')}\n`)
    const child = start('lighttpd', ['-D', '-f', file])
    await accepts(port, child)
    return { port, pids: [child.pid], stop: () => child.stop() }
  },
}

/** lighttpd's key of session tickets: a format version, when it becomes valid and when it ends, then 80 random bytes. Made once. */
function ticketKey(directory: string): string {
  const file = join(directory, 'ticket-key')
  if (existsSync(file)) return file
  const now = Math.floor(Date.now() / 1000)
  const times = Buffer.from(new Int32Array([0, now, now + 86_400]).buffer)
  writeFileSync(file, Buffer.concat([times, randomBytes(80)]), { mode: 0o600 })
  return file
}
