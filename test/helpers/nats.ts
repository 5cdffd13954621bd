import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePorts } from './free-ports.js'

/** A cluster of three nats-servers with MQTT and JetStream, for one test file. */
export interface NatsCluster {
  /** The MQTT ports of the servers on 127.0.0.1. */
  readonly ports: readonly number[]
  /** Ends one server without warning. */
  kill(index: number): Promise<void>
  /** Ends all servers and removes their directory. */
  stop(): Promise<void>
}

const size = 3

/** Starts the cluster and waits until its JetStream has a leader, which MQTT needs. */
export async function startNatsCluster(): Promise<NatsCluster> {
  const directory = await mkdtemp(join(tmpdir(), 'nats-'))
  const ports = await freePorts(4 * size)
  const portsOf = (kind: number): number[] => ports.slice(kind * size, (kind + 1) * size)
  const [clients, routes, mqtt, monitors] = [portsOf(0), portsOf(1), portsOf(2), portsOf(3)]
  const files = await Promise.all(
    mqtt.map(async (port, index) => {
      const file = join(directory, `${index}.conf`)
      await writeFile(
        file,
        `
        server_name: server${index}
        listen: 127.0.0.1:${clients[index]}
        http: 127.0.0.1:${monitors[index]}
        max_payload: 16MB
        jetstream { store_dir: ${JSON.stringify(join(directory, String(index)))} }
        mqtt { listen: 127.0.0.1:${port} }
        cluster {
          name: test
          listen: 127.0.0.1:${routes[index]}
          routes: [${routes.map(route => `nats://127.0.0.1:${route}`).join(', ')}]
        }
        `,
      )
      return file
    }),
  )
  const servers: { child: ChildProcess; exited: Promise<void> }[] = []
  const start = async (index: number): Promise<void> => {
    const child = spawn('nats-server', ['-c', files[index] ?? ''], {
      stdio: 'ignore',
      env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin` },
    })
    child.once('error', () => {})
    servers[index] = { child, exited: new Promise(resolve => child.once('exit', () => resolve())) }
    while (!(await isReady(monitors[index] ?? 0))) {
      if (child.exitCode !== null || child.pid === undefined) throw new Error('nats-server did not start')
    }
  }
  const kill = async (index: number): Promise<void> => {
    const server = servers[index]
    if (!server || server.child.exitCode !== null || server.child.signalCode !== null) return
    server.child.kill('SIGKILL')
    await server.exited
  }
  const stop = async (): Promise<void> => {
    await Promise.all(servers.map((_, index) => kill(index)))
    await rm(directory, { recursive: true, force: true })
  }
  try {
    await Promise.all(files.map((_, index) => start(index)))
  } catch (error) {
    await stop()
    throw error
  }
  return { ports: mqtt, kill, stop }
}

async function isReady(monitor: number): Promise<boolean> {
  try {
    const { ok } = await fetch(`http://127.0.0.1:${monitor}/healthz`)
    return ok
  } catch {
    return false
  }
}
