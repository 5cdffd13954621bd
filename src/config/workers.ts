import { availableParallelism } from 'node:os'
import { type Config, maxWorkers } from './schema.js'

/** The number of worker processes; 1 for none beside this process. */
export function workersOf({ workers }: Pick<Config, 'workers'>): number {
  return workers === 'auto' ? Math.min(availableParallelism(), maxWorkers) : workers
}
