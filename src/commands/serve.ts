import { createLog, type Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import { loadConfig } from '../config/load.js'
import { fileModes, startWarnings } from '../config/warnings.js'
import { startGateway } from '../gateway/gateway.js'
import { raiseTrimThreshold } from './trim-threshold.js'

type StopSignal = 'SIGTERM' | 'SIGINT'

/**
 * `mqway serve`: runs the gateway until it is told to stop.
 *
 * SIGTERM and SIGINT end it within `shutdown.grace`, a second one at once; SIGHUP reads certificates, passwords and keys again.
 *
 * @returns the exit code: 0 after a stop, 69 when something that it needs at start is not to be had
 * @throws {ConfigError}
 */
export async function serve(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  raiseTrimThreshold()
  const cwd = process.cwd()
  const loaded = loadConfig({ argv, env, cwd })
  const { config } = loaded
  const log = createLog(config.log)
  for (const warning of startWarnings(loaded, fileModes(cwd))) log.warn(warning)
  const signals = watchSignals(log)
  try {
    const gateway = await startGateway(config, log, { cwd, file: loaded.file })
    log.info({ urls: gateway.urls }, `mqway is ready: ${gateway.urls.join('  ')}`)
    signals.onReload = () => gateway.reload()
    const signal = await signals.stop
    const { grace } = config.shutdown
    log.info({ signal }, `stopping, within ${grace / 1000} s; once more for at once`)
    // Whatever does not close, or what a library still holds: the promise of an end within the grace time comes first.
    setTimeout(() => {
      log.warn('not everything was closed in time')
      process.exit(0)
    }, grace).unref()
    await gateway.close(grace)
    log.info('stopped')
    return 0
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    process.stderr.write(`mqway: ${error.message}\n`)
    return error.exitCode
  } finally {
    signals.close()
  }
}
/** The signals that a service manager and a terminal send. A stop that comes while the gateway starts is kept. */
function watchSignals(log: Logger): { stop: Promise<StopSignal>; onReload: () => void; close(): void } {
  let stopping = false
  let stop: (signal: StopSignal) => void
  const watch = {
    stop: new Promise<StopSignal>(resolve => {
      stop = resolve
    }),
    onReload: () => {},
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
  const onHangup = (): void => watch.onReload()
  process.on('SIGTERM', onStop).on('SIGINT', onStop).on('SIGHUP', onHangup)
  return watch
}
