import type { AttackedGateway } from '../helpers/attacked-gateway.js'
import type { Attackers } from '../helpers/attackers.js'
import type { Bystander, BystanderReport } from '../helpers/bystander.js'
import type { Scenario } from './scenarios/scenario.js'

/** Figures of the gateway while some scenarios ran at the same time. */
export interface Row {
  readonly scenarios: readonly string[]
  /** What each of them sent, in its own unit. */
  readonly sent: readonly number[]
  readonly bystander: BystanderReport
  /** Resident bytes at the end. */
  readonly memory: number
  readonly descriptors: number
  /** Longest delay of the event loop in milliseconds. */
  readonly longestTurn: number
}

export interface CampaignOptions {
  readonly gateway: AttackedGateway
  readonly attackers: Attackers
  readonly bystander: Bystander
  readonly scenarios: readonly Scenario[]
  /** How many run at the same time. */
  readonly together: number
  /** Milliseconds of each group. */
  readonly milliseconds: number
  /** Called with each row when it is measured. */
  readonly onRow?: (row: Row) => void
  /** Who the attackers with a name are; every second one is. */
  readonly login?: { readonly username: string; readonly password: string }
}

/** First address of the attackers; each of those that run together has its own. */
const firstAddress = 10

/** Runs every scenario once, `together` at a time, in their order. Ends early when the gateway does. */
export async function attackOnce(options: CampaignOptions): Promise<Row[]> {
  const { gateway, attackers, bystander, scenarios, together, milliseconds, login } = options
  const rows: Row[] = []
  for (let begin = 0; begin < scenarios.length && gateway.isAlive(); begin += together) {
    const group = scenarios.slice(begin, begin + together)
    await bystander.window()
    await gateway.metric(delayMetric).catch(() => 0)
    const outcomes = await attackers.run(
      group.map(({ name }, index) => ({
        name,
        milliseconds,
        target: {
          mqttPort: gateway.mqttPort,
          http: gateway.http,
          https: gateway.https,
          address: `127.0.0.${firstAddress + index}`,
          ...((begin + index) % 2 === 1 ? login : undefined),
        },
      })),
    )
    const failed = outcomes.find(({ error }) => error !== undefined)
    if (failed) throw new Error(`an attacker failed: ${failed.error}`)
    const row: Row = {
      scenarios: group.map(({ name }) => name),
      sent: outcomes.map(({ sent }) => sent),
      bystander: await bystander.window(),
      ...(await figuresOf(gateway)),
    }
    options.onRow?.(row)
    rows.push(row)
  }
  return rows
}

const delayMetric = 'nodejs_eventloop_lag_max_seconds'

/** Zeros where the gateway does not answer. */
async function figuresOf(gateway: AttackedGateway): Promise<Pick<Row, 'memory' | 'descriptors' | 'longestTurn'>> {
  const [delay, memory, descriptors] = await Promise.all([
    gateway.metric(delayMetric).catch(() => 0),
    gateway.memory().catch(() => 0),
    gateway.descriptors().catch(() => 0),
  ])
  return { memory, descriptors, longestTurn: 1000 * delay }
}

/** Head of the table: times in milliseconds, memory in MiB. */
export const tableHead = [
  '| mqtt p99/max | http p99/max | push p99/max | control | errors | MiB | descriptors | longest turn | scenarios (sent) |',
  '|---|---|---|---|---|---|---|---|---|',
].join('\n')

export function formatRow({ scenarios, sent, bystander, ...figures }: Row): string {
  const kinds = ['mqtt', 'http', 'push', 'control'] as const
  const times = kinds.map(kind => [bystander[kind].p99, bystander[kind].max].map(Math.round).join('/'))
  const errors = kinds.reduce((sum, kind) => sum + bystander[kind].errors.length, 0)
  const { memory, descriptors, longestTurn } = figures
  const names = scenarios.map((name, index) => `${name} (${sent[index]})`).join(', ')
  const cells = [...times, errors, Math.round(memory / 2 ** 20), descriptors, Math.round(longestTurn), names]
  return `| ${cells.join(' | ')} |`
}
