import { join } from 'node:path'
import { accepts, freePort, start } from '../children.js'
import { missingOf, type Running, type System } from './system.js'

/** `front` with a redis-server, whose processor time counts, too: `Setup.redisUrl`. */
export function withRedis(front: System): System {
  return {
    ...front,
    missing: () => front.missing() ?? missingOf('redis-server'),
    async start(setup) {
      const redis = await startRedis(setup.directory)
      try {
        const running = await front.start({ ...setup, redisUrl: redis.url })
        const stop = async (): Promise<void> => {
          await running.stop()
          await redis.stop()
        }
        return { ...running, pids: [...running.pids, ...redis.pids], stop }
      } catch (error) {
        await redis.stop()
        throw error
      }
    },
  }
}

/** Without a file. */
async function startRedis(directory: string): Promise<Running & { readonly url: string }> {
  const port = await freePort()
  const path = join(directory, 'redis.sock')
  const options = [
    '--bind',
    '127.0.0.1',
    '--port',
    String(port),
    '--unixsocket',
    path,
    '--save',
    '',
    '--dir',
    directory,
  ]
  const child = start('redis-server', options)
  await accepts(port, child)
  return { port, url: `unix:${path}`, pids: [child.pid], stop: () => child.stop() }
}
