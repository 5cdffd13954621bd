import { createLog, type Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import { loadConfig } from '../config/load.js'
import { fileModes, startWarnings } from '../config/warnings.js'
import { startGateway } from '../gateway/gateway.js'

type StopSignal = 'SIGTERM' | 'SIGINT'

/**
 * `mqway serve`: runs the gateway until a signal.
 *
 * SIGTERM and SIGINT stop it within `shutdown.grace`, a second one at once; SIGHUP reloads certificates, passwords and keys.
 *
 * @returns exit code 0 after a stop; 69 for a `StartError`
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
    // The process ends within the grace time, whatever is still open.
    setTimeout(() => {
      log.warn('failed to close everything in time')
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

/** Watches the signals of service managers and terminals, also during the start. */
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
