import { isDeepStrictEqual } from 'node:util'
import type { TunnelsInput } from './drafts.js'
import type { Socket } from './listeners.js'
import type { Report } from './report.js'
import type { Tunnel } from './tunnels.js'
import type { LeftOut } from './write.js'

/** The tunnels of all sockets in one list, and those that are left out. */
export interface Joined {
  readonly tunnels: TunnelsInput
  readonly leftOut: readonly LeftOut[]
}

type Kept = { readonly tunnel: Tunnel; readonly sockets: Socket[] }

/** Joins the tunnels of all sockets; one that is not on every socket gets `ports`. */
export function joinSockets(perSocket: ReadonlyMap<Socket, readonly Tunnel[]>, report: Report): Joined {
  const kept: Kept[] = []
  const leftOut: LeftOut[] = []
  const leaveOut = ({ input, at }: Tunnel, reason: string): void => {
    const isKnown = leftOut.some(known => known.reason === reason && isDeepStrictEqual(known.input, input))
    if (!isKnown) leftOut.push({ input, reason, at })
  }
  for (const [socket, tunnels] of perSocket) {
    for (const tunnel of tunnels) {
      const same = kept.find(other => isDeepStrictEqual(other.tunnel.input, tunnel.input))
      if (tunnel.refusal !== undefined) leaveOut(tunnel, tunnel.refusal)
      else if (hidden(tunnel, kept, socket)) {
        report.note(tunnel.at, 'this tunnel is left out: another one takes all of its connections')
      } else if (same) same.sockets.push(socket)
      else kept.push({ tunnel, sockets: [socket] })
    }
  }
  const all = [...perSocket.keys()]
  const tunnels = kept.flatMap(({ tunnel, sockets }) => {
    if (sockets.length === all.length) return [tunnel.input]
    const elsewhere = all.find(
      other => !sockets.includes(other) && sockets.some(socket => portOf(socket) === portOf(other)),
    )
    if (elsewhere) {
      const where = typeof elsewhere.port === 'string' ? elsewhere.port : `${elsewhere.host}:${elsewhere.port}`
      leaveOut(
        tunnel,
        `it is not at ${where}, and mqway tells sockets apart by their ports alone (Unix sockets not at all)`,
      )
      return []
    }
    return [{ ...tunnel.input, ports: [...new Set(sockets.map(({ port }) => port))] }]
  })
  return { tunnels, leftOut }
}

/** The TCP port of a socket; `undefined` for Unix sockets, which mqway does not distinguish. */
function portOf({ port }: Socket): number | undefined {
  return typeof port === 'number' ? port : undefined
}

/** Whether an earlier tunnel of the same socket gets all connections of this one. */
function hidden(tunnel: Tunnel, kept: readonly Kept[], socket: Socket): boolean {
  const pathOf = ({ input }: Tunnel) =>
    JSON.stringify([input.pathPrefix, input.pathSuffix, input.pathPattern, input.hosts])
  return kept.some(other => other.sockets.includes(socket) && pathOf(other.tunnel) === pathOf(tunnel))
}
