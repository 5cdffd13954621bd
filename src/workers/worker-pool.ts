import cluster from 'node:cluster'
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import type { Config } from '../config/schema.js'
import { CountsKeeper } from './counts-keeper.js'
import type { RelayedAnswers, RelayedQuestion, TicketKey, WorkerStart } from './messages.js'
import { PassedConnections } from './passed-connections.js'
import { watchResponsiveness } from './responsiveness.js'
import { StateKeeper } from './state-keeper.js'
import { WorkerMetrics } from './worker-metrics.js'
import { type WorkerEnd, WorkerProcess } from './worker-process.js'

export interface WorkerPoolOptions {
  readonly start: Omit<WorkerStart, 'worker'>
  /** Flags of Node.js for the workers. */
  readonly execArgv: readonly string[]
  /** The key of TLS session tickets, where they are not in the data directory. */
  readonly ticketKey: () => TicketKey
  readonly log: Logger
}

/** Milliseconds before a worker is replaced: at first, doubled each time it ends again, and at most. */
const [firstDelay, maxDelay] = [100, 30_000]

/** Milliseconds after which a worker that serves counts as stable. */
const stableAfter = 60_000

/** Milliseconds until a worker counts as not answering a question of another one. */
const relayTimeout = 3000

/** Milliseconds until a worker counts as failing to reload. */
const reloadTimeout = 60_000

/** Ends of one worker in a row after which the pool gives up, if no other worker serves. */
const maxEnds = 4

/**
 * Processes that serve the same ports: this process binds them, and gives each new connection to the next worker. A worker that ends is replaced.
 */
export class WorkerPool {
  /** Resolves to the reason if no worker can be kept running. */
  readonly failed: Promise<Error>
  readonly #options: WorkerPoolOptions
  /** As reloaded last. */
  #config: Config
  /** By number. */
  readonly #workers = new Map<number, WorkerProcess>()
  readonly #counts = new CountsKeeper()
  readonly #state = new StateKeeper()
  readonly #connections = new PassedConnections()
  readonly #metrics: WorkerMetrics
  readonly #closed = new AbortController()
  #onFailed: (error: Error) => void = () => {}

  constructor(options: WorkerPoolOptions) {
    this.#options = options
    this.#config = options.start.config
    this.#metrics = new WorkerMetrics(options.start.workers)
    this.failed = new Promise(resolve => {
      this.#onFailed = resolve
    })
  }

  /**
   * Starts the workers: the first one alone, because it makes what all use, such as a development certificate.
   *
   * @returns the URLs that all serve
   * @throws {StartError} if one cannot start; then all have ended
   */
  async start(): Promise<readonly string[]> {
    if (!cluster.isPrimary)
      throw new StartError('the option workers needs a process that is not a worker of another program')
    cluster.schedulingPolicy = cluster.SCHED_RR
    cluster.setupPrimary({ execArgv: [...this.#options.execArgv], serialization: 'advanced' })
    process.once('exit', () => this.#kill())
    try {
      const first = this.#fork(1)
      const urls = await first.ready
      const others = Array.from({ length: this.#options.start.workers - 1 }, (_, index) => this.#fork(index + 2))
      await Promise.all(others.map(other => other.ready))
      for (const worker of [first, ...others]) this.#keepRunning(worker)
      return urls
    } catch (error) {
      this.#kill()
      throw error
    }
  }

  /**
   * Applies another configuration in all workers: in one first, as the others will not refuse it then. See `Gateway.reload`.
   *
   * @throws {Error} with the reason of the first one; then nothing has changed
   */
  async reload(config: Config): Promise<void> {
    const first = await this.#reloadOne(config)
    this.#config = config
    const others = [...this.#workers.values()].filter(worker => worker !== first && worker.isReady)
    await Promise.all(others.map(worker => this.#update(worker)))
  }

  /** @returns the first worker that has applied it */
  async #reloadOne(config: Config): Promise<WorkerProcess> {
    for (const worker of this.#workers.values()) {
      if (!worker.isReady) continue
      try {
        await worker.channel.ask('reload', config, reloadTimeout)
        return worker
      } catch (error) {
        // It may have ended meanwhile.
        if (worker.isReady) throw error
      }
    }
    throw new Error('no worker serves')
  }

  /** Counts a reload whose configuration is invalid. */
  reloadRefused(): void {
    for (const { channel, isReady } of this.#workers.values()) if (isReady) channel.notify('reloadRefused', undefined)
  }

  /** Gives a worker the configuration of the others. One that cannot use it is replaced. */
  async #update(worker: WorkerProcess): Promise<void> {
    try {
      await worker.channel.ask('reload', this.#config, reloadTimeout)
    } catch (error) {
      this.#options.log.error({ err: error, worker: worker.number }, 'A worker failed to reload, and is replaced')
      worker.kill()
    }
  }

  /** Stops the workers; see `Gateway.close`. */
  async close(grace: number): Promise<void> {
    this.#closed.abort()
    const workers = [...this.#workers.values()]
    for (const worker of workers) worker.stop(grace)
    await Promise.all(workers.map(worker => worker.ended))
  }

  #fork(worker: number): WorkerProcess {
    const config = this.#config
    const forked = new WorkerProcess({ ...this.#options.start, config, worker })
    this.#workers.set(worker, forked)
    const { child, channel, listening, ready, ended } = forked
    const closePassed = this.#connections.watch(child)
    ended.then(() => {
      if (!this.#closed.signal.aborted) closePassed()
    })
    channel.onQuestion('allMetrics', () => this.#metrics.read())
    channel.onQuestion('askOthers', question => this.#askOthers(forked, question))
    channel.onQuestion('ticketKey', this.#options.ticketKey)
    listening.then(() => {
      this.#state.add(channel)
      const removeCounts = this.#counts.add(channel)
      ended.then(removeCounts)
      this.#killIfHung(forked)
    })
    const source = { metrics: () => channel.ask('metrics', undefined) }
    ready.then(
      () => {
        this.#metrics.add(source)
        ended.then(() => this.#metrics.ended(source))
        // Reloaded while it started.
        if (config !== this.#config) void this.#update(forked)
      },
      () => {},
    )
    return forked
  }

  async #askOthers(from: WorkerProcess, { kind, body }: RelayedQuestion): Promise<RelayedAnswers<unknown>> {
    const others = [...this.#workers.values()].filter(worker => worker !== from && worker.isReady)
    const results = await Promise.allSettled(others.map(({ channel }) => channel.ask(kind, body, relayTimeout)))
    const answers = results.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []))
    return { answers, missing: this.#options.start.workers - 1 - answers.length }
  }

  /** Ends a worker whose event loop stands still, so that it is replaced. */
  async #killIfHung(worker: WorkerProcess): Promise<void> {
    const { channel, ended, number, pid } = worker
    const ending = new AbortController()
    ended.then(() => ending.abort())
    if ((await watchResponsiveness({ channel, signal: ending.signal })) !== 'hung') return
    this.#options.log.error({ worker: number, pid }, 'A worker does not respond and is ended')
    worker.kill()
  }

  /** Replaces a worker each time that it ends. */
  async #keepRunning({ number, ended: firstEnd }: WorkerProcess): Promise<void> {
    const { log } = this.#options
    let ended: Promise<WorkerEnd> = firstEnd
    for (let ends = 1; ; ends += 1) {
      const { pid, exitCode, signal, error, served } = await ended
      if (this.#closed.signal.aborted) return
      if (served >= stableAfter) ends = 1
      const seconds = Math.min(maxDelay, firstDelay * 2 ** (ends - 1)) / 1000
      const fields = { worker: number, pid, exitCode, signal, reason: error?.message }
      if (ends >= maxEnds && ![...this.#workers.values()].some(({ isReady }) => isReady)) {
        log.error(fields, 'A worker has ended again and again')
        this.#kill()
        return this.#onFailed(error ?? new Error(`worker ${number} ends again and again`))
      }
      log.error(fields, `A worker has ended and is replaced in ${seconds} s`)
      await delay(seconds * 1000, undefined, { signal: this.#closed.signal }).catch(() => {})
      if (this.#closed.signal.aborted) return
      ended = this.#replace(number)
    }
  }

  /** @returns its end, also where no process can be made */
  async #replace(number: number): Promise<WorkerEnd> {
    try {
      const { pid, ready, ended } = this.#fork(number)
      ready.then(
        () => this.#options.log.info({ worker: number, pid }, 'A worker was replaced'),
        () => {},
      )
      return await ended
    } catch (cause) {
      const error = new StartError(`no process can be made: ${cause instanceof Error ? cause.message : cause}`, {
        cause,
      })
      return { pid: undefined, exitCode: null, signal: null, error, served: 0 }
    }
  }

  #kill(): void {
    this.#closed.abort()
    for (const worker of this.#workers.values()) worker.kill()
  }
}
