import {
  type SharedState,
  type StateBounds,
  type StateChange,
  type StateCollection,
  StateFullError,
  type StateRecord,
  type Usage,
  type UsageReport,
} from '../storage/shared-state.js'
import type { Channel } from './channel.js'

/** Milliseconds until the primary process counts as away. */
const timeout = 3000

/** The state that workers share, which is in the memory of the primary process (`StateKeeper`). */
export class WorkerState implements SharedState {
  readonly #channel: Channel

  constructor(channel: Channel) {
    this.#channel = channel
  }

  collection(name: string, bounds: StateBounds): StateCollection {
    const channel = this.#channel
    return {
      get: (key: string): Promise<StateRecord> => channel.ask('getEntry', { name, bounds, key }, timeout),
      set: async (key: string, version: string, change: StateChange | undefined): Promise<string | undefined> => {
        const set = await channel.ask('setEntry', { name, bounds, key, version, change }, timeout)
        if (set === 'full') throw new StateFullError()
        return set
      },
    }
  }

  exchange(usage: readonly Usage[]): Promise<readonly UsageReport[]> {
    return this.#channel.ask('exchangeUsage', usage, timeout)
  }
}
