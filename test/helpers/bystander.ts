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

/** What a bystander saw. `push` is from `POST /v1/publish` to an event stream; `control` is an echo server's, beside the gateway. */
export type BystanderReport = Readonly<Record<'mqtt' | 'http' | 'push' | 'control', RoundTrips>>

export interface BystanderOptions {
  /** Left out: no MQTT. */
  readonly mqttPort?: number
  /** Left out: no HTTP. */
  readonly httpUrl?: string
  /** Whether it publishes and listens over HTTP as well. Default: yes. */
  readonly push?: boolean
  readonly username?: string
  readonly password?: string
  /** Of HTTP requests. */
  readonly headers?: Readonly<Record<string, string>>
  /** Milliseconds between two round trips. Default: 20. */
  readonly interval?: number
  /** How long the last ones may take after `stop`, in milliseconds. Default: 5000. */
  readonly patience?: number
}

/** Clients of other addresses (MQTT: 127.0.0.2, HTTP: 127.0.0.3), in a process of their own, while a gateway is under attack. */
export interface Bystander {
  /** Resolves when it has seen so many round trips of every kind since its start. */
  rounds(count: number): Promise<void>
  /** The figures since the last window; round trips that are still under way count as lost in it. */
  window(): Promise<BystanderReport>
  /** Ends it, when its last messages have arrived or had their time. */
  stop(): Promise<BystanderReport>
}

/** Resolves when all its clients are connected and measure. */
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

/** In the suite, beside other tests on a shared machine, a time means less than in `npm run attack`, which holds to the bound itself. */
const slack = process.env['ATTACK_SECONDS'] === undefined ? 10 : 1

/**
 * Fails unless everything arrived once and 99 of 100 round trips took less than `most` milliseconds more than those of the control,
 * which the machine's other work slows down as well; ten times as much in the suite.
 */
export function expectUndisturbed(report: BystanderReport, most = 100): void {
  for (const kind of ['mqtt', 'http', 'push'] as const) {
    const { lost, repeated, errors, p99 } = report[kind]
    expect({ kind, lost, repeated, errors }).toEqual({ kind, lost: 0, repeated: 0, errors: [] })
    expect(p99, `p99 of ${kind}: ${JSON.stringify(report)}`).toBeLessThan(slack * most + report.control.p99)
  }
}
