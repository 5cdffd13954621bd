import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePorts } from './free-ports.js'

/** A RabbitMQ with its MQTT plugin, for one test file. */
export interface RabbitMq {
  /** Its MQTT port on 127.0.0.1, for the user `guest` with the password `guest`, and for anonymous clients. */
  readonly port: number
  /** Ends it without warning. */
  kill(): Promise<void>
  /** Ends it and removes its directory. */
  stop(): Promise<void>
}

/**
 * Starts RabbitMQ with its own directory, node name and port mapper of Erlang, which would otherwise be started as a daemon and stay, and waits until it
 * accepts connections of MQTT.
 */
export async function startRabbitMq(): Promise<RabbitMq> {
  const directory = await mkdtemp(join(tmpdir(), 'rabbitmq-'))
  const [amqp, distribution, mapper, port] = (await freePorts(4)) as [number, number, number, number]
  const file = (name: string): string => join(directory, name)
  await writeFile(
    file('rabbitmq.conf'),
    [
      `listeners.tcp.1 = 127.0.0.1:${amqp}`,
      `mqtt.listeners.tcp.1 = 127.0.0.1:${port}`,
      'mqtt.allow_anonymous = true',
      'log.console = false',
    ].join('\n'),
  )
  await writeFile(file('plugins'), '[rabbitmq_mqtt].')
  await writeFile(file('erlang.cookie'), 'test')
  const epmd = spawn('epmd', ['-port', String(mapper), '-address', '127.0.0.1'], { stdio: 'ignore' })
  epmd.once('error', () => {})
  // Its own program, because Debian's wrapper changes to the user rabbitmq.
  const child = spawn('/usr/lib/rabbitmq/bin/rabbitmq-server', [], {
    stdio: 'ignore',
    detached: true,
    env: {
      ...process.env,
      HOME: directory,
      RABBITMQ_NODENAME: `test${amqp}@localhost`,
      RABBITMQ_CONFIG_FILE: file('rabbitmq'),
      RABBITMQ_ENABLED_PLUGINS_FILE: file('plugins'),
      RABBITMQ_MNESIA_BASE: file('mnesia'),
      RABBITMQ_LOG_BASE: file('log'),
      RABBITMQ_DIST_PORT: String(distribution),
      ERL_EPMD_PORT: String(mapper),
    },
  })
  child.once('error', () => {})
  const exited = new Promise<void>(resolve => child.once('exit', () => resolve()))
  const end = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
    // The whole group, because the program is started by shells.
    process.kill(-child.pid, 'SIGKILL')
    await exited
    while (await accepts(port));
  }
  const stop = async (): Promise<void> => {
    await end()
    epmd.kill('SIGKILL')
    await rm(directory, { recursive: true, force: true, maxRetries: 5 })
  }
  while (!(await accepts(port))) {
    if (child.exitCode === null && child.pid !== undefined) continue
    await stop()
    throw new Error('RabbitMQ did not start')
  }
  return { port, kill: end, stop }
}

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => setTimeout(resolve, 50, false))
  })
}
