import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'

/** Round trips of one kind, in milliseconds. */
export interface RoundTrips {
  readonly sent: number
  readonly lost: number
  readonly repeated: number
  readonly p50: number
  readonly p99: number
  readonly max: number
  /** Refusals and closed connections, the first ten. */
  readonly errors: readonly string[]
}

/** Results of a bystander. `push` is from `POST /v1/publish` to an event stream; `control` is an echo server beside the gateway. */
export type BystanderReport = Readonly<Record<'mqtt' | 'http' | 'push' | 'control', RoundTrips>>

export interface BystanderOptions {
  /** Without it: no MQTT. */
  readonly mqttPort?: number
  /** Without it: no HTTP. */
  readonly httpUrl?: string
  /** Whether it also publishes and subscribes over HTTP. Default: true. */
  readonly push?: boolean
  readonly username?: string
  readonly password?: string
  /** Headers of HTTP requests. */
  readonly headers?: Readonly<Record<string, string>>
  /** Milliseconds between two round trips. Default: 20. */
  readonly interval?: number
  /** Timeout of the last round trips after `stop`, in milliseconds. Default: 5000. */
  readonly patience?: number
}

/** Clients of other addresses (MQTT: 127.0.0.2, HTTP: 127.0.0.3), in a separate process, while a gateway is under attack. */
export interface Bystander {
  /** Resolves after `count` round trips of every kind since its start. */
  rounds(count: number): Promise<void>
  /** Results since the last window; unfinished round trips count as lost in it. */
  window(): Promise<BystanderReport>
  /** Ends it after the arrival or the timeout of its last messages. */
  stop(): Promise<BystanderReport>
}

/** Resolves when all its clients are connected and measuring. */
export async function startBystander(options: BystanderOptions): Promise<Bystander> {
  const echo = start('echo-process.js')
  const [echoPort] = await once(echo, 'message')
  const defaults = { mqttAddress: '127.0.0.2', httpAddress: '127.0.0.3', interval: 20, patience: 5000 }
  const child = start('bystander-process.js', JSON.stringify({ ...defaults, ...options, echoPort }))
  const died = once(child, 'exit').then(([code]) => Promise.reject(new Error(`the bystander ended with ${code}`)))
  died.catch(() => {})
  await Promise.race([once(child, 'message'), died])
  return {
    rounds: async count => {
      const seen = once(child, 'message')
      child.send({ rounds: count })
      await Promise.race([seen, died])
    },
    window: async () => {
      const reported = once(child, 'message')
      child.send({ window: true })
      const [report] = await Promise.race([reported, died])
      return report
    },
    stop: async () => {
      const reported = once(child, 'message')
      child.send({})
      const [report] = await Promise.race([reported, died])
      echo.disconnect()
      return report
    },
  }
}

function start(file: string, ...args: string[]): ChildProcess {
  return fork(fileURLToPath(new URL(file, import.meta.url)), args)
}

/** Factor of the bound: 1 in `npm run attack`, 10 in the suite, where other tests share the machine. */
const slack = process.env['ATTACK_SECONDS'] === undefined ? 10 : 1

/**
 * Fails unless each message arrived once and the p99 of round trips exceeds that of the control by less than `maxDelay` milliseconds; ten times as
 * much in the suite. Other load of the machine slows down the control as well.
 */
export function expectUndisturbed(report: BystanderReport, maxDelay = 100): void {
  for (const kind of ['mqtt', 'http', 'push'] as const) {
    const { lost, repeated, errors, p99 } = report[kind]
    expect({ kind, lost, repeated, errors }).toEqual({ kind, lost: 0, repeated: 0, errors: [] })
    expect(p99, `p99 of ${kind}: ${JSON.stringify(report)}`).toBeLessThan(slack * maxDelay + report.control.p99)
  }
}
