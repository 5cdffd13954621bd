import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { connect, type Socket } from 'node:net'

const [upstreamPort, cert, key] = process.argv.slice(2)

/** A server on a free port of loopback, with TLS when the command line names a certificate; prints the port. */
export function listen(): Server {
  const server =
    cert === undefined || key === undefined
      ? createServer()
      : createTlsServer({ cert: readFileSync(cert), key: readFileSync(key) })
  server.listen(0, '127.0.0.1', 4096, () => {
    const address = server.address()
    if (address !== null && typeof address === 'object') console.log(address.port)
  })
  return server
}

export function connectUpstream(): Socket {
  return connect({ host: '127.0.0.1', port: Number(upstreamPort), noDelay: true })
}
