import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ConfigInput } from '../../src/config/schema.js'
import { type RunningProgram, run } from './processes.js'

/** The build of this working tree; `ATTACKED_PROGRAM` names another one, to compare. */
const program = process.env['ATTACKED_PROGRAM'] ?? fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

/** A `mqway serve` in a separate process with little memory and few descriptors, as the target of attacks. */
export interface AttackedGateway {
  readonly pid: number
  readonly http: string
  readonly https: string
  readonly mqttPort: number
  /** Its working directory, the base of relative paths in the configuration. The next start can reuse it. */
  readonly directory: string
  readonly running: RunningProgram
  /** The value of one metric, the sum of its series. */
  metric(name: string): Promise<number>
  /** Resident memory in bytes. */
  memory(): Promise<number>
  /** Open file descriptors. */
  descriptors(): Promise<number>
  /** Running time of its main thread since the start, and its waiting time for a core, in milliseconds. Linux only. */
  scheduling(): Promise<{ readonly run: number; readonly waited: number }>
  isAlive(): boolean
  /** Its log lines so far, in JSON. */
  readonly log: readonly Record<string, unknown>[]
  stop(signal?: NodeJS.Signals): Promise<void>
  /** Ends it, and removes its directory. */
  close(): Promise<void>
}

export interface AttackedGatewayOptions {
  /** Megabytes of V8's old generation. Default: 512. */
  readonly heap?: number
  /** Open files. Default: 4096. */
  readonly descriptors?: number
  /** The directory of an earlier one, with its data. */
  readonly directory?: string
}

/** Starts one on free ports of loopback; `data` is on disk unless `config` says `none`. Needs `dist/` (`npm run build`). */
export async function startAttackedGateway(
  config: ConfigInput = {},
  { heap = 512, descriptors = 4096, ...options }: AttackedGatewayOptions = {},
): Promise<AttackedGateway> {
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'mqway-attack-')))
  const { http, https, mqtt, ...rest } = config
  const input: ConfigInput = {
    http: { port: 0, ...http },
    https: { port: 'off', ...https },
    mqtt: { port: 0, ...mqtt },
    ...rest,
  }
  const file = join(directory, 'mqway.yaml')
  await writeFile(file, JSON.stringify(input))
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MQWAY_')))
  const command = `ulimit -n ${descriptors}; exec "$0" --max-old-space-size=${heap} "$@"`
  const args = [program, 'serve', '--config', file, '--log-format', 'json']
  const running = run('bash', ['-c', command, process.execPath, ...args], { cwd: directory, env })
  const log: Record<string, unknown>[] = []
  let urls: string[] = []
  for (;;) {
    const line: Record<string, unknown> = JSON.parse(await running.line())
    log.push(line)
    if (!String(line['msg']).includes('is ready')) continue
    urls = Array.isArray(line['urls']) ? line['urls'] : []
    break
  }
  void (async () => {
    for (;;) log.push(JSON.parse(await running.line()))
  })().catch(() => {})
  const url = (scheme: string): string => urls.find(candidate => candidate.startsWith(`${scheme}://`)) ?? ''
  const pid = running.child.pid ?? 0
  const mqttUrl = url('mqtt')
  return {
    pid,
    http: url('http'),
    https: url('https'),
    mqttPort: mqttUrl === '' ? 0 : Number(new URL(mqttUrl).port),
    directory,
    running,
    log,
    metric: async name => {
      const text = await (await fetch(new URL('/metrics', url('http')))).text()
      const series = text.split('\n').filter(line => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
      return series.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
    },
    memory: async () => {
      const status = await readFile(`/proc/${pid}/status`, 'utf8')
      return 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1])
    },
    descriptors: async () => (await readdir(`/proc/${pid}/fd`)).length,
    scheduling: async () => {
      const [run = 0, waited = 0] = (await readFile(`/proc/${pid}/task/${pid}/schedstat`, 'utf8'))
        .split(' ')
        .map(Number)
      return { run: run / 1e6, waited: waited / 1e6 }
    },
    isAlive: () => running.child.exitCode === null && running.child.signalCode === null,
    stop: signal => running.stop(signal),
    close: async () => {
      await running.stop('SIGKILL')
      await rm(directory, { recursive: true, force: true })
    },
  }
}
