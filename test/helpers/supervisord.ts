import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run } from './processes.js'
import { eventually } from './wait.js'

const program = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

/** A supervisord for one test, with mqway as its event listener. */
export interface Supervisord {
  /** `supervisorctl start cat`, `stop`, …; resolves with its response. */
  control(...args: string[]): Promise<void>
  /** mqway's output on standard error. */
  readonly errors: () => string
  /** supervisord's log. */
  readonly log: () => string
  stop(): Promise<void>
}

export interface SupervisordOptions {
  /** Arguments of `mqway supervisor`. */
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Further lines of supervisord.conf: the programs. */
  readonly config: readonly string[]
  /** The events of the listener. */
  readonly events?: string
}

/** Starts Debian's supervisord in its own directory. */
export async function startSupervisord(options: SupervisordOptions): Promise<Supervisord> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-supervisord-'))
  const file = join(directory, 'supervisord.conf')
  const errors = join(directory, 'mqway.log')
  const quote = (text: string): string => `"${text.replaceAll('"', '\\"').replaceAll('%', '%%')}"`
  const command = [process.execPath, program, 'supervisor', ...options.args].map(quote).join(' ')
  const variables = Object.entries(options.env ?? {}).map(([name, value]) => `${name}=${quote(value)}`)
  const lines = [
    '[supervisord]',
    'nodaemon=true',
    `logfile=/dev/null`,
    'logfile_maxbytes=0',
    // Logs when an event has to be kept.
    'loglevel=debug',
    `pidfile=${directory}/pid`,
    `childlogdir=${directory}`,
    // Prevents a warning as root.
    `user=${userInfo().username}`,
    '[unix_http_server]',
    `file=${directory}/control.sock`,
    '[rpcinterface:supervisor]',
    'supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface',
    '[supervisorctl]',
    `serverurl=unix://${directory}/control.sock`,
    '[eventlistener:mqway]',
    `command=${command}`,
    ...(variables.length === 0 ? [] : [`environment=${variables.join(',')}`]),
    `directory=${directory}`,
    `events=${options.events ?? 'PROCESS_STATE'}`,
    'buffer_size=1000',
    'stopwaitsecs=5',
    'startsecs=0',
    `stderr_logfile=${errors}`,
    ...options.config,
  ]
  await writeFile(file, `${lines.join('\n')}\n`)
  const env = { PATH: `${process.env['PATH']}:/usr/sbin` }
  const running = run('supervisord', ['-c', file], { cwd: directory, env })
  let log = ''
  running.child.stdout.on('data', chunk => {
    log += chunk
  })
  await Promise.race([eventually(() => log.includes('mqway entered RUNNING state')), running.exited()])
  if (running.child.exitCode !== null) throw new Error(`supervisord did not start: ${running.errors()}${log}`)
  return {
    control: async (...args) => {
      // The test checks the state of the program, so the exit code is ignored.
      await run('supervisorctl', ['-c', file, ...args], { cwd: directory, env }).exited()
    },
    errors: () => readFileSync(errors, 'utf8'),
    log: () => log,
    stop: async () => {
      await running.stop()
      await rm(directory, { recursive: true, force: true })
    },
  }
}
