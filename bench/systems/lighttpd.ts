import { writeFileSync } from 'node:fs'
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

  async start({ directory, tls, certificate, upstreamPort }) {
    const port = await freePort()
    const lines = [
      `server.modules = ( "mod_wstunnel"${tls ? ', "mod_openssl"' : ''} )`,
      `server.document-root = "${directory}"`,
      'server.bind = "127.0.0.1"',
      `server.port = ${port}`,
      // 5,000 tunnels are 10,000 descriptors.
      'server.max-fds = 16384',
      'server.max-connections = 8192',
      `wstunnel.server = ( "/mqtt" => ( ( "host" => "127.0.0.1", "port" => ${upstreamPort} ) ) )`,
      'wstunnel.frame-type = "binary"',
    ]
    if (tls) {
      lines.push('ssl.engine = "enable"', `ssl.pemfile = "${certificate.cert}"`, `ssl.privkey = "${certificate.key}"`)
    }
    const file = join(directory, 'lighttpd.conf')
    writeFileSync(file, `${lines.join('\n')}\n`)
    const child = start('lighttpd', ['-D', '-f', file])
    await accepts(port, child)
    return { port, pids: [child.pid], stop: () => child.stop() }
  },
}
