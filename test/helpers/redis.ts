import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'

/** A redis-server for one test, on a Unix socket. */
export interface RedisServer {
  readonly url: string
  /** A client of its own. */
  readonly client: Redis
  /** Stops it as it is, and lets it go on. */
  pause(): void
  resume(): void
  /** Ends it without warning, and starts it again with the files that it has. */
  kill(): Promise<void>
  start(): Promise<void>
  /** Ends it and removes its directory. */
  stop(): Promise<void>
}

/**
 * @param options further options of redis-server, such as `--appendonly yes`
 * @param sentinel lines of `sentinel.conf`, for a sentinel
 */
export async function startRedis(
  options: readonly string[] = [],
  sentinel: readonly string[] = [],
): Promise<RedisServer> {
  const directory = await mkdtemp(join(tmpdir(), 'redis-'))
  const path = join(directory, 'redis.sock')
  let child: ReturnType<typeof spawn> | undefined
  const start = async (): Promise<void> => {
    const file = join(directory, 'sentinel.conf')
    if (sentinel.length > 0) await writeFile(file, sentinel.join('\n'))
    const files = sentinel.length > 0 ? [file, '--sentinel'] : []
    const args = [
      ...files,
      '--port',
      '0',
      '--unixsocket',
      path,
      '--dir',
      directory,
      '--save',
      '',
      '--daemonize',
      'no',
      ...options,
    ]
    child = spawn('redis-server', args, { stdio: 'ignore' })
    child.once('error', () => {})
    const ended = child
    for (;;) {
      if (ended.exitCode !== null) throw new Error('redis-server did not start')
      if (await answers(path)) return
      await new Promise(setImmediate)
    }
  }
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const ending = child
    if (!ending || ending.exitCode !== null || ending.signalCode !== null) return
    const exited = new Promise(resolve => ending.once('exit', resolve))
    ending.kill('SIGCONT')
    ending.kill(signal)
    await exited
  }
  await start()
  const client = new Redis({ path, retryStrategy: () => 20 })
  client.on('error', () => {})
  return {
    url: `unix:${path}`,
    client,
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
    kill: () => end('SIGKILL'),
    start,
    stop: async () => {
      client.disconnect()
      await end('SIGKILL')
      await rm(directory, { recursive: true, force: true })
    },
  }
}

/** Whether the server answers, and has read its files. */
function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ path })
    socket.once('error', () => resolve(false))
    socket.once('data', data => {
      socket.destroy()
      resolve(data.toString().startsWith('+PONG') || data.toString().startsWith('-NOAUTH'))
    })
    socket.once('connect', () => socket.write('PING\r\n'))
  })
}
