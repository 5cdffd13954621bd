import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'

/** A proxy between clients and a server that cuts connections. */
export interface CuttingProxy {
  readonly port: number
  /** Number of cut connections. */
  readonly cuts: number
  /** Cuts an open connection, chosen by `pick` from 0 to 1; sometimes with a reset. */
  cut(pick: number): void
  close(): Promise<void>
}

/** Starts one on a port of loopback, in front of a port of loopback. */
export async function startCuttingProxy(target: () => number): Promise<CuttingProxy> {
  const open = new Set<Socket>()
  let cuts = 0
  const server = net.createServer({ allowHalfOpen: true }, client => {
    const upstream = net.connect({ port: target(), host: '127.0.0.1', allowHalfOpen: true })
    const end = (): void => {
      open.delete(client)
      client.destroy()
      upstream.destroy()
    }
    open.add(client)
    for (const socket of [client, upstream]) socket.on('error', end).on('close', end).setNoDelay(true)
    client.pipe(upstream)
    upstream.pipe(client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    get cuts() {
      return cuts
    },
    cut: pick => {
      const victim = [...open][Math.floor(pick * open.size)]
      if (!victim) return
      cuts++
      if (pick < 0.3) victim.resetAndDestroy()
      else victim.destroy()
    },
    close: async () => {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
