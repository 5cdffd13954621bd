import { onTestFinished } from 'vitest'
import { type RrrOptions, type RrrPush, registerRrr } from '../../src/compat/rrr/push.js'
import type { RrrConfig } from '../../src/config/compat.js'
import { eventually } from '../helpers/wait.js'
import { type Rig, type RigOptions, startRig } from '../transports/rig.js'

/** As the configuration has it, but that nothing happens by itself while a test runs. */
export const rrrDefaults: RrrConfig = {
  prefix: '/rrr',
  wait: 60_000,
  maxHandles: 10,
  maxQueued: 100,
  maxAge: 60_000,
  websocketTopicFilters: ['#'],
  binary: false,
}

export interface RrrRig extends Rig {
  readonly rrr: RrrPush
  ask(target: string, init?: RequestInit): Promise<Response>
  /** Asks, and returns when the request waits for what comes next. */
  wait(target: string, init?: RequestInit): Promise<{ readonly answer: Promise<Response> }>
}

/** A rig with RRR's push; it is closed with the test. */
export async function startRrrRig(
  config: Partial<RrrConfig> = {},
  options: Partial<RigOptions> & { readonly rrr?: Partial<RrrOptions> } = {},
): Promise<RrrRig> {
  let made: RrrPush | undefined
  const rig = await startRig({
    ...options,
    register: async (app, delivery) => {
      await options.register?.(app, delivery)
      made = registerRrr(app, { ...delivery, ...options.rrr, config: { ...rrrDefaults, ...config } })
    },
  })
  if (!made) throw new Error('nothing is registered')
  const rrr = made
  onTestFinished(async () => {
    rrr.close()
    await rig.close()
  })
  const ask: RrrRig['ask'] = (target, init) => fetch(`${rig.url}${target}`, init)
  return {
    ...rig,
    rrr,
    ask,
    wait: async (target, init) => {
      const { length } = rig.attendances
      const answer = ask(target, init)
      // It is subscribed when it has looked through what there is.
      await eventually(() => rig.attendances.length > length && rig.hub.counters.subscribers > 0)
      return { answer }
    },
  }
}
