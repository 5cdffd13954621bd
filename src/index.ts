/**
 * The library: a gateway within another program (docs/library.md).
 *
 * @module
 */

import { createLog, type Logger } from './base/log.js'
import { type ConfigChange, planReload } from './config/changes.js'
import { configOf } from './config/load.js'
import type { ConfigInput } from './config/schema.js'
import { fileModes, startWarnings } from './config/warnings.js'
import { startGateway as startWith } from './gateway/gateway.js'
import type { ProgramServer } from './server/attached-server.js'

export { StartError } from './base/start-error.js'
export { ConfigError } from './config/problems.js'
export type { ConfigChange }

/** The options of `mqway.yaml` (docs/configuration.md), with the same defaults. */
export type Config = ConfigInput

/** A web server of `node:http`, `node:https` or `node:http2`. */
export type { ProgramServer as Server }

/** A line of the log. Never contains passwords or payloads. */
export interface LogEntry {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal'
  readonly message: string
  /** Further fields, such as `connection`, `peer`, `reason`, and `err` with `type`, `message` and `stack`. */
  readonly fields: Readonly<Record<string, unknown>>
}

export interface GatewayOptions {
  /**
   * Servers of this program, on which the gateway answers its own requests and upgrades, too; all others stay the program's. The ports and the pages of
   * the gateway are off then, unless the configuration names them.
   */
  readonly server?: ProgramServer | readonly ProgramServer[] | undefined
  /** Paths of the gateway that are the program's on these servers, such as `/metrics`. */
  readonly except?: readonly string[] | undefined
  /** Relative paths of the configuration begin here. Default: the working directory. */
  readonly cwd?: string | undefined
  /** Called for each line of the log from `log.level` on; must not throw. Default: lines on standard output, as of the program mqway. */
  readonly log?: ((entry: LogEntry) => void) | undefined
}

/** A running gateway. */
export interface Gateway {
  /** URLs of its own ports; none for the servers of this program. */
  readonly urls: readonly string[]
  /** Number of open tunnels and MQTT connections. */
  readonly connections: number
  /**
   * Reads certificates, passwords and keys again; an invalid one is logged, and the old one stays in use. With `config`, changes to this configuration: connections that it
   * does not allow end, and all others stay. One call after the other.
   *
   * @returns the options that differ; those whose effect is `restart` keep their values
   * @throws {ConfigError} for an invalid configuration; nothing has changed then
   * @throws {StartError} when a file cannot be used; nothing has changed then
   */
  reload(config?: Config): Promise<readonly ConfigChange[]>
  /**
   * Stops accepting, ends the open connections with a reason, closes the brokers, and leaves the servers of this program. Idempotent.
   *
   * @param grace milliseconds after which open connections are destroyed. Default: `shutdown.grace`
   */
  close(grace?: number): Promise<void>
}

/**
 * Starts a gateway in this process.
 *
 * @param config is copied; flags, environment variables and `mqway.yaml` are not read
 * @throws {ConfigError} for an invalid configuration, with all problems
 * @throws {StartError} when an address cannot be bound, or a file or the data directory cannot be used; nothing stays open then
 */
export async function startGateway(config: Config = {}, options: GatewayOptions = {}): Promise<Gateway> {
  const { server = [], except = [], cwd = process.cwd(), log: onEntry } = options
  const servers = [server].flat()
  const loaded = configOf(config, { cwd, isAttached: servers.length > 0 })
  const { log: logOptions } = loaded.config
  const log = onEntry ? entryLog(logOptions.level, onEntry) : createLog(logOptions)
  for (const warning of startWarnings(loaded, fileModes(cwd))) log.warn(warning)
  let running = loaded.config
  const gateway = await startWith(loaded.config, log, { cwd, servers, except })
  return {
    urls: gateway.urls,
    get connections() {
      return gateway.connections
    },
    reload: async next => {
      const place = { cwd, isAttached: servers.length > 0 }
      const plan = next && planReload(running, configOf(next, place), place)
      await gateway.reload(plan?.config)
      running = plan?.config ?? running
      return plan?.changes ?? []
    },
    close: (grace = running.shutdown.grace) => gateway.close(grace),
  }
}

const levels: Readonly<Record<number, LogEntry['level']>> = {
  10: 'trace',
  20: 'debug',
  30: 'info',
  40: 'warn',
  50: 'error',
  60: 'fatal',
}

function entryLog(level: Parameters<typeof createLog>[0]['level'], onEntry: (entry: LogEntry) => void): Logger {
  const write = (line: string): void => {
    const { level: number, time: _time, msg, ...fields } = JSON.parse(line) as Record<string, unknown>
    onEntry({ level: levels[Number(number)] ?? 'info', message: String(msg ?? ''), fields })
  }
  return createLog({ level, format: 'json' }, { write })
}
