import { setMaxListeners } from 'node:events'
import { setPriority } from 'node:os'
import { scenarios } from './index.js'
import type { AttackTarget } from './scenario.js'

/** An order to an attacker's process. */
export interface Order {
  readonly name: string
  readonly target: AttackTarget
  readonly milliseconds: number
}

/** The answer: the number of units sent; `error` where the scenario rejected. */
export interface Outcome {
  readonly sent: number
  readonly error?: string
}

// Sockets that the gateway resets at the wrong moment are no reason to end.
process.on('uncaughtException', () => {})
process.on('unhandledRejection', () => {})
process.on('disconnect', () => process.exit())
// The gateway and the bystander come first where there are few cores.
setPriority(19)

process.on('message', async ({ name, target, milliseconds }: Order) => {
  const scenario = scenarios.find(candidate => candidate.name === name)
  const signal = AbortSignal.timeout(milliseconds)
  // Each socket of the attack waits for it.
  setMaxListeners(0, signal)
  const outcome: Outcome = await (scenario?.run(target, signal) ?? Promise.reject(name)).then(
    sent => ({ sent }),
    error => ({ sent: 0, error: String(error) }),
  )
  process.send?.(outcome)
})
