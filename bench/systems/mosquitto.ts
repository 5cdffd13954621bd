import { writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { accepts, freePort, start } from '../children.js'
import { missingOf, type Running, type System } from './system.js'

/** mosquitto with its own WebSocket listener. */
export const mosquitto: System = {
  name: 'mosquitto',
  speaks: 'websocket',
  hasTls: true,
  missing: () => missingOf('mosquitto'),
  start: ({ directory, tls, certificate }) =>
    startMosquitto(directory, [
      'protocol websockets',
      ...(tls ? [`certfile ${certificate.cert}`, `keyfile ${certificate.key}`] : []),
      // mosquitto 2.0.11 counts only plain listeners, and does not start without one.
      `listener 0 ${join(directory, 'plain.sock')}`,
    ]),
}

/** `front` before a mosquitto, over TCP or a Unix socket; the processor time of both counts. */
export function beforeMosquitto(front: System, by: 'tcp' | 'unix' = 'tcp'): System {
  return {
    name: `${front.name} + mosquitto${by === 'unix' ? ' (Unix socket)' : ''}`,
    speaks: front.speaks,
    hasTls: front.hasTls,
    ...(front.push && { push: front.push }),
    missing: () => front.missing() ?? mosquitto.missing(),
    async start(setup) {
      const upstreamSocket = join(setup.directory, 'broker.sock')
      const broker = await startMosquitto(setup.directory, by === 'unix' ? [`listener 0 ${upstreamSocket}`] : [])
      try {
        const upstream = by === 'unix' ? { upstreamSocket } : { upstreamPort: broker.port }
        const running = await front.start({ ...setup, ...upstream })
        const stop = async (): Promise<void> => {
          await running.stop()
          await broker.stop()
        }
        return { ...running, pids: [...running.pids, ...broker.pids], stop }
      } catch (error) {
        await broker.stop()
        throw error
      }
    },
  }
}

async function startMosquitto(directory: string, listener: readonly string[]): Promise<Running> {
  const port = await freePort()
  const lines = [
    `listener ${port} 127.0.0.1`,
    ...listener,
    'allow_anonymous true',
    // As root it would become the user mosquitto, who may not write here.
    `user ${userInfo().username}`,
    // As the embedded broker and the tunnel have it: each small packet leaves at once.
    'set_tcp_nodelay true',
  ]
  const file = join(directory, 'mosquitto.conf')
  writeFileSync(file, `${lines.join('\n')}\n`)
  const child = start('mosquitto', ['-c', file])
  await accepts(port, child)
  return { port, pids: [child.pid], stop: () => child.stop() }
}
