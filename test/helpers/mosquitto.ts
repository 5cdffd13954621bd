import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type NetConnectOpts } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'

/** Listener of the broker, on a free port by default; `tls` has PEM files. */
export type MosquittoListener =
  | { readonly kind: 'tcp'; readonly port?: number }
  | { readonly kind: 'unix' }
  | { readonly kind: 'tls'; readonly cert: string; readonly key: string; readonly clientCa?: string }

/** A mosquitto for one test. */
export interface Mosquitto {
  /** Its TCP port on 127.0.0.1; 0 with a Unix socket. */
  readonly port: number
  /** Its Unix socket; empty with TCP. */
  readonly path: string
  /** Ends it without warning. */
  kill(): Promise<void>
  /** Ends it and removes its directory. */
  stop(): Promise<void>
}

/**
 * Starts a mosquitto on a free port of loopback, with its own directory, and waits until it accepts connections.
 *
 * @param config further lines for mosquitto.conf, after the listener's
 */
export async function startMosquitto(
  listener: MosquittoListener = { kind: 'tcp' },
  config: readonly string[] = ['allow_anonymous true'],
): Promise<Mosquitto> {
  const directory = await mkdtemp(join(tmpdir(), 'mosquitto-'))
  const path = listener.kind === 'unix' ? join(directory, 'broker.sock') : ''
  const given = listener.kind === 'tcp' ? listener.port : undefined
  const port = listener.kind === 'unix' ? 0 : (given ?? (await freePort()))
  const lines = [listener.kind === 'unix' ? `listener 0 ${path}` : `listener ${port} 127.0.0.1`]
  if (listener.kind === 'tls') {
    lines.push(`certfile ${listener.cert}`, `keyfile ${listener.key}`)
    if (listener.clientCa !== undefined) lines.push(`cafile ${listener.clientCa}`, 'require_certificate true')
  }
  const file = join(directory, 'mosquitto.conf')
  // As root it would switch to the user mosquitto, without write permission here.
  lines.push(...config, 'sys_interval 1', `user ${userInfo().username}`)
  await writeFile(file, `${lines.join('\n')}\n`)
  const child = spawn('mosquitto', ['-c', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
    // Debian's location, which may not be in PATH.
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin` },
  })
  let errors = ''
  child.stderr.on('data', chunk => {
    errors += chunk
  })
  const exited = new Promise<void>(resolve => {
    child.once('error', () => resolve())
    child.once('exit', () => resolve())
  })
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal)
    await exited
  }
  const accepts = waitUntilItAccepts(path === '' ? { host: '127.0.0.1', port } : { path }, child)
  if (!(await accepts)) {
    await rm(directory, { recursive: true })
    throw new Error(`mosquitto did not start: ${errors}`)
  }
  return {
    port,
    path,
    kill: () => end('SIGKILL'),
    stop: async () => {
      await end('SIGTERM')
      await rm(directory, { recursive: true, force: true })
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Returns false if it ends before. */
async function waitUntilItAccepts(target: NetConnectOpts, child: ChildProcess): Promise<boolean> {
  while (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
    const socket = connect(target)
    try {
      await once(socket, 'connect')
      return true
    } catch {
      // Not yet.
    } finally {
      socket.destroy()
    }
  }
  return false
}
