import type { Logger } from '../base/log.js'
import { type ConfigChange, planReload, type ReloadPlan } from '../config/changes.js'
import { ConfigError, type LoadedConfig } from '../config/load.js'
import type { Config } from '../config/schema.js'
import { fileModes, startWarnings } from '../config/warnings.js'

/** A gateway, or a pool of workers, that can be reloaded. */
export interface Reloadable {
  /** See `Gateway.reload`. */
  reload(config: Config): Promise<void>
  /** See `Gateway.reloadRefused`. */
  reloadRefused(): void
}

export interface ReloaderOptions {
  readonly serving: Reloadable
  /** Loads the configuration as the start did. @throws {ConfigError} */
  readonly load: () => LoadedConfig
  /** The configuration of the start. */
  readonly running: Config
  readonly cwd: string
  readonly log: Logger
}

/** Reloads the configuration of a running program, one reload after the other. */
export class Reloader {
  readonly #options: ReloaderOptions
  #running: Config
  #last: Promise<unknown> = Promise.resolve()
  /** A reload that has not begun yet. */
  #next: Promise<readonly ConfigChange[]> | undefined

  constructor(options: ReloaderOptions) {
    this.#options = options
    this.#running = options.running
  }

  /** The configuration in effect. */
  get running(): Config {
    return this.#running
  }

  /** The changes that a reload would make now. @throws {ConfigError} when it would be refused */
  compare(): readonly ConfigChange[] {
    return this.#plan().plan.changes
  }

  /**
   * Reads the configuration again and applies it. Logs what has changed, what needs a restart, and what is wrong. Calls while a reload runs are one further reload.
   *
   * @returns the changes
   * @throws {ConfigError} and what `Gateway.reload` throws; nothing has changed then
   */
  reload(): Promise<readonly ConfigChange[]> {
    this.#next ??= this.#last.then(() => {
      this.#next = undefined
      const reloaded = this.#reload()
      this.#last = reloaded.catch(() => {})
      return reloaded
    })
    return this.#next
  }

  async #reload(): Promise<readonly ConfigChange[]> {
    const { serving, cwd, log } = this.#options
    try {
      const { loaded, plan } = this.#plan(true)
      for (const warning of startWarnings(loaded, fileModes(cwd))) log.warn(warning)
      await serving.reload(plan.config)
      if (plan.config.log.level !== this.#running.log.level) log.level = plan.config.log.level
      this.#running = plan.config
      logChanges(plan.changes, log)
      return plan.changes
    } catch (error) {
      const problems = error instanceof ConfigError ? error.problems : [reasonOf(error)]
      for (const problem of problems) log.error(`The configuration was not reloaded, nothing has changed: ${problem}`)
      throw error
    }
  }

  #plan(counts = false): { loaded: LoadedConfig; plan: ReloadPlan } {
    const { serving, load, cwd } = this.#options
    try {
      const loaded = load()
      return { loaded, plan: planReload(this.#running, loaded, { cwd }) }
    } catch (error) {
      if (counts) serving.reloadRefused()
      throw error
    }
  }
}

function logChanges(changes: readonly ConfigChange[], log: Logger): void {
  const of = (effect: ConfigChange['effect']): string[] =>
    changes.filter(change => change.effect === effect).map(({ option }) => option)
  const [changed, restart] = [of('reload'), of('restart')]
  log.info({ changed }, `Reloaded the configuration; changed: ${changed.join(', ') || 'nothing'}`)
  if (restart.length > 0) log.warn({ restart }, `Restart to apply the changes of ${restart.join(', ')}`)
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
