import { fileURLToPath } from 'node:url'
import { start } from '../children.js'
import { node } from '../places.js'
import type { System } from './system.js'

/** The usual ways to bridge WebSocket and TCP in Node; the programs are in `bridges/`. */
function bridge(name: string): System {
  const program = fileURLToPath(new URL(`bridges/${name}.js`, import.meta.url))
  return {
    name,
    speaks: 'websocket',
    hasTls: true,
    missing: () => undefined,
    async start({ tls, certificate, upstreamPort }) {
      const files = tls ? [certificate.cert, certificate.key] : []
      const child = start(node, [program, String(upstreamPort), ...files])
      const port = Number(await child.firstLine)
      return { port, pids: [child.pid], stop: () => child.stop() }
    },
  }
}

export const websocketStream = bridge('websocket-stream')
export const wsStream = bridge('ws-stream')
