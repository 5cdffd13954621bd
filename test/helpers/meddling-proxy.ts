import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'

/** Restrictions of a proxy. */
export interface Meddling {
  /** Refuses upgrades, or forwards them and then cuts the connection, like a proxy for HTTP only. */
  readonly sockets?: 'refused' | 'cut'
  /** Buffers event streams until they end. */
  readonly streams?: 'buffered'
}

/** A reverse proxy in front of a gateway that interferes with its connections. */
export interface MeddlingProxy {
  readonly url: string
  /** Its restrictions for new connections. */
  meddling: Meddling
  /** The requested paths, with a prefix for upgrades. */
  readonly requests: string[]
  /** Silently stops forwarding on open connections. */
  freeze(): void
  /** Cuts open connections. */
  cut(): void
  close(): Promise<void>
}

/** Starts one on a port of loopback. */
export async function startMeddlingProxy(target: () => string, meddling: Meddling = {}): Promise<MeddlingProxy> {
  const open = new Set<Socket>()
  /** Sockets to the gateway. */
  const upstreams = new Set<Socket>()
  const requests: string[] = []
  const server = http.createServer((request, response) => {
    requests.push(pathOf(request))
    const { method, headers } = request
    const upstream = http.request(new URL(request.url ?? '', target()), { method, headers }, answer => {
      answer.on('error', () => response.destroy())
      if (proxy.meddling.streams === 'buffered' && answer.headers['content-type']?.startsWith('text/event-stream')) {
        const kept: Buffer[] = []
        answer.on('data', chunk => kept.push(chunk))
        answer.on('end', () => response.writeHead(answer.statusCode ?? 502, answer.headers).end(Buffer.concat(kept)))
        return
      }
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    upstream.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()))
    response.on('close', () => upstream.destroy())
    request.pipe(upstream)
  })
  server.on('connection', socket => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
  })
  server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    requests.push(`upgrade ${pathOf(request)}`)
    socket.on('error', () => socket.destroy())
    const { sockets } = proxy.meddling
    if (sockets === 'refused') {
      socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
      return
    }
    const upstream = net.connect({ host: '127.0.0.1', port: Number(new URL(target()).port) })
    upstreams.add(upstream)
    const end = (): void => {
      socket.destroy()
      upstream.destroy()
    }
    upstream.on('error', end).on('close', () => {
      upstreams.delete(upstream)
      end()
    })
    socket.on('close', end)
    const lines = request.rawHeaders.map((text, index) => (index % 2 === 0 ? `${text}: ` : `${text}\r\n`))
    upstream.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join('')}\r\n`)
    upstream.write(head)
    socket.pipe(upstream)
    if (sockets === 'cut') upstream.once('data', end)
    else upstream.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const proxy: MeddlingProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    meddling,
    requests,
    freeze: () => {
      for (const socket of open) socket.unpipe().pause()
      for (const socket of upstreams) socket.unpipe().pause()
    },
    cut: () => {
      for (const socket of open) socket.destroy()
    },
    close: async () => {
      proxy.cut()
      server.close()
      await once(server, 'close')
    },
  }
  return proxy
}

function pathOf({ url = '' }: IncomingMessage): string {
  return url.replace(/\?.*/, '')
}
