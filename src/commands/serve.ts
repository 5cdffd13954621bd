import { resolve } from 'node:path'
import { createLog, type Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import type { ConfigChange } from '../config/changes.js'
import { type LoadedConfig, loadConfig } from '../config/load.js'
import { fileModes, startWarnings } from '../config/warnings.js'
import { workersOf } from '../config/workers.js'
import { startGateway } from '../gateway/gateway.js'
import { checkInheritedSockets, type InheritedSocket, takeInheritedSockets } from '../server/inherited-sockets.js'
import { SessionTicketKeys } from '../server/session-ticket-keys.js'
import { isWorker } from '../workers/is-worker.js'
import type { WorkerStop } from '../workers/primary-process.js'
import { type Control, startControl } from './control.js'
import { workerFlags } from './heap-flags.js'
import { type Reloadable, Reloader } from './reloader.js'
import { ServiceManager } from './service-manager.js'

type StopSignal = 'SIGTERM' | 'SIGINT'

/**
 * `mqway serve`: runs the gateway until a signal.
 *
 * SIGTERM and SIGINT stop it within `shutdown.grace`, a second one at once; SIGHUP reloads the configuration, certificates, passwords and keys.
 *
 * With systemd, it takes the sockets of that, and tells it when it serves, reloads and stops.
 *
 * @returns exit code 0 after a stop; 69 for a `StartError`
 * @throws {ConfigError}
 */
export async function serve(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  raiseTrimThreshold()
  if (isWorker(env)) return serveAsWorker()
  const cwd = process.cwd()
  const load = (): LoadedConfig => loadConfig({ argv, env, cwd })
  const loaded = load()
  const { config } = loaded
  const log = createLog(config.log)
  for (const warning of startWarnings(loaded, fileModes(cwd))) log.warn(warning)
  const signals = watchSignals(log)
  const manager = new ServiceManager(env, log)
  const file = loaded.file === undefined ? undefined : resolve(cwd, loaded.file)
  let control: Control | undefined
  try {
    const inherited = takeInheritedSockets(env, process.pid)
    checkInheritedSockets(inherited, config)
    const reload = async (): Promise<readonly ConfigChange[]> => {
      const it = await reloader
      void manager.reloading()
      try {
        return await it.reload()
      } finally {
        void manager.ready(statusOf(await starting))
      }
    }
    const compare = async (): Promise<readonly ConfigChange[]> => (await reloader).compare()
    // First: if it fails, there is nothing to close.
    if (config.control !== undefined) control = await startControl(config.control, { reload, compare, file })
    const starting = startServing(loaded, log, cwd, inherited)
    const statusOf = ({ urls }: Serving): string => `Serving ${urls.join(' ')}`
    const reloader = starting.then(serving => new Reloader({ serving, load, running: config, cwd, log }))
    // The failure of the start is that of `starting`.
    reloader.catch(ignore)
    // Also one during the start: some files may have been read by then. A failure is logged.
    signals.onReload = () => reload().catch(ignore)
    const serving = await starting
    log.info({ urls: serving.urls }, `mqway is ready: ${serving.urls.join('  ')}`)
    void manager.ready(statusOf(serving))
    const signal = await Promise.race([signals.stop, serving.failed ?? signals.stop])
    if (signal instanceof Error) throw signal
    const { grace } = (await reloader).running.shutdown
    log.info({ signal }, `stopping, within ${grace / 1000} s; once more for at once`)
    exitAfter(grace, log)
    void manager.stopping()
    control?.close()
    await serving.close(grace)
    log.info('stopped')
    return 0
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    process.stderr.write(`mqway: ${error.message}\n`)
    return error.exitCode
  } finally {
    control?.close()
    manager.close()
    signals.close()
  }
}

/** A gateway, or workers with one each. */
interface Serving extends Reloadable {
  readonly urls: readonly string[]
  /** Resolves to a reason to end. */
  readonly failed?: Promise<Error>
  close(grace: number): Promise<void>
}

/** @throws {StartError} */
async function startServing(
  { config, file }: LoadedConfig,
  log: Logger,
  cwd: string,
  inherited: readonly InheritedSocket[],
): Promise<Serving> {
  const workers = workersOf(config)
  if (workers === 1) return startGateway(config, log, { cwd, file, inherited })
  if (inherited.length > 0) {
    throw new StartError(
      'workers cannot take the sockets of systemd, which are closed when all workers have ended: use workers: 1, or no .socket unit',
    )
  }
  const { WorkerPool } = await import('../workers/worker-pool.js')
  const ticketKeys = await SessionTicketKeys.open({ data: undefined, log })
  const pool = new WorkerPool({
    start: { workers, config, file },
    execArgv: workerFlags(workers),
    ticketKey: () => ticketKeys.current,
    log,
  })
  const urls = await pool.start()
  return {
    ...{ urls, failed: pool.failed },
    reload: next => pool.reload(next),
    reloadRefused: () => pool.reloadRefused(),
    close: async grace => {
      await Promise.all([pool.close(grace), ticketKeys.close()])
    },
  }
}

/** Runs the gateway of one worker until the primary process stops it, or has ended. */
async function serveAsWorker(): Promise<number> {
  const { PrimaryProcess } = await import('../workers/primary-process.js')
  const primary = new PrimaryProcess()
  const { worker, config, file, group } = await primary.start()
  const log = createLog(config.log).child({ worker })
  const timeOf = ({ grace = config.shutdown.grace }: WorkerStop): number => grace
  // Also during the start: without the primary process, a port is never bound.
  primary.stop.then(stop => exitAfter(timeOf(stop), log))
  try {
    const starting = startGateway(config, log, { file, group })
    primary.channel.onQuestion('reload', async next => {
      await (await starting).reload(next)
      return undefined
    })
    primary.channel.onNotice('reloadRefused', () => void starting.then(gateway => gateway.reloadRefused(), ignore))
    const gateway = await starting
    primary.channel.notify('ready', gateway.urls)
    const stop = await primary.stop
    if (stop.grace === undefined) log.warn('the primary process has ended: stopping')
    await gateway.close(timeOf(stop))
    return 0
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    await primary.fail(error.message)
    return error.exitCode
  } finally {
    primary.close()
  }
}

/** Ends the process within the grace time, whatever is still open. */
function exitAfter(grace: number, log: Logger): void {
  setTimeout(() => {
    log.warn('failed to close everything in time')
    process.exit(0)
  }, grace).unref()
}

/** Watches the signals of service managers and terminals, also during the start. */
function watchSignals(log: Logger): { stop: Promise<StopSignal>; onReload: () => unknown; close(): void } {
  let stopping = false
  let stop: (signal: StopSignal) => void
  const watch = {
    stop: new Promise<StopSignal>(resolve => {
      stop = resolve
    }),
    onReload: (): unknown => undefined,
    close: () => {
      process.off('SIGTERM', onStop).off('SIGINT', onStop).off('SIGHUP', onHangup)
    },
  }
  const onStop = (signal: StopSignal): void => {
    if (stopping) {
      log.warn({ signal }, 'stopping at once')
      process.exit(1)
    }
    stopping = true
    stop(signal)
  }
  const onHangup = (): void => void watch.onReload()
  process.on('SIGTERM', onStop).on('SIGINT', onStop).on('SIGHUP', onHangup)
  return watch
}

/** Just below the largest mapped block that glibc takes into account, in bytes. */
const trimBlockSize = 32 * 1024 ** 2 - 64 * 1024

/**
 * Makes glibc keep freed memory. By default, it returns memory to the kernel as soon as 128 KiB at the top of its heap are free, and the
 * page faults of Node's 64 KiB read buffers took 40 % of processor time under load (bench/README.md). glibc raises that threshold to
 * twice the size of the largest mapped block that was freed (mallopt(3), dynamic mmap threshold): this block is garbage at once, and is
 * never written, so that it takes no memory. Without glibc, it has no effect.
 */
function raiseTrimThreshold(): void {
  Buffer.allocUnsafeSlow(trimBlockSize)
}

function ignore(): void {}
