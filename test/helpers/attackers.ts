import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'
import type { Order, Outcome } from '../attack/scenarios/process.js'

const entry = fileURLToPath(new URL('../attack/scenarios/process.ts', import.meta.url))

/** Attackers in separate processes with the lowest priority. */
export interface Attackers {
  /** Runs each order in the process of the same index, all at the same time. */
  run(orders: readonly Order[]): Promise<readonly Outcome[]>
  close(): Promise<void>
}

/** Starts `count` processes that wait for orders. */
export async function startAttackers(count: number): Promise<Attackers> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-attackers-'))
  const file = join(directory, 'attacker.mjs')
  const bundle = await rolldown({ input: entry, platform: 'node', external: ['bufferutil', 'utf-8-validate'] })
  await bundle.write({ file, format: 'esm' })
  await bundle.close()
  const processes = Array.from({ length: count }, () => fork(file))
  return {
    run: orders => Promise.all(orders.map((order, index) => runOrder(processes[index % count], order))),
    close: async () => {
      for (const child of processes) child.kill()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

/** @throws if the process does not respond within half a minute after the end of the attack */
async function runOrder(child: ChildProcess | undefined, order: Order): Promise<Outcome> {
  if (child === undefined) throw new Error('there is no attacker')
  child.send(order)
  const [outcome] = await once(child, 'message', { signal: AbortSignal.timeout(order.milliseconds + 30_000) })
  return outcome
}
