import type { Http2SecureServer } from 'node:http2'
import type { TLSSocket, TlsOptions } from 'node:tls'
import type { PendingChallenges } from './pending-challenges.js'

/** The protocol of a CA that checks a name (RFC 8737 §6.2). It has no data: the certificate is the response. */
const validation = 'acme-tls/1'

/** Selects the protocol of a connection as a web server does, and that of a CA with a pending challenge. */
export function selectProtocol(challenges: PendingChallenges): NonNullable<TlsOptions['ALPNCallback']> {
  return function (this: TLSSocket, { servername, protocols }: { servername: string; protocols: string[] }) {
    // §3: it offers nothing else.
    if (protocols.length === 1 && protocols[0] === validation) {
      const context = challenges.contextFor(servername)
      if (context === undefined) return undefined
      this.setKeyCert(context)
      return validation
    }
    return ['h2', 'http/1.1'].find(protocol => protocols.includes(protocol))
  }
}

/** Ends connections of CAs after the handshake, before the server begins HTTP on them. */
export function endValidations(server: Http2SecureServer): void {
  server.prependListener('secureConnection', socket => {
    if (socket.alpnProtocol !== validation) return
    socket.destroySoon()
    // For Node, any other protocol than that of HTTP/1.1 is HTTP/2.
    socket.alpnProtocol = 'http/1.1'
  })
}
