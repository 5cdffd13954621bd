import { execFile } from 'node:child_process'
import type { Logger } from '../base/log.js'

/** Milliseconds until `systemd-notify` counts as failed. */
const notifyTimeout = 5000

/**
 * Tells systemd the state of this process, where it wants to know it (`Type=notify`, sd_notify(3)), and that its event loop runs, where a watchdog waits for
 * that. The messages are datagrams to a Unix socket, which Node does not have: systemd's own program `systemd-notify` sends them, one at a time.
 */
export class ServiceManager {
  readonly #socket: string | undefined
  readonly #log: Logger
  readonly #watchdog: NodeJS.Timeout | undefined
  /** The message that is being sent. */
  #sent: Promise<void> = Promise.resolve()
  #isPinging = false
  #hasFailed = false

  /** Removes its variables from `env`: they are not for programs that this one starts. */
  constructor(env: NodeJS.ProcessEnv, log: Logger) {
    const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: microseconds, WATCHDOG_PID: pid = String(process.pid) } = env
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete env[name]
    this.#socket = socket
    this.#log = log
    const milliseconds = Number(microseconds) / 1000
    if (socket === undefined || !(milliseconds > 0) || pid !== String(process.pid)) return
    // As often as sd_watchdog_enabled(3) recommends. An event loop that is blocked for so long fires no timer.
    this.#watchdog = setInterval(() => this.#ping(), Math.max(1, milliseconds / 2)).unref()
  }

  /** The process serves, also again after `reloading`. Resolves when systemd knows. */
  ready(status: string): Promise<void> {
    return this.#send('READY=1', `STATUS=${status}`)
  }

  /** The configuration is being read again; `ready` has to follow. */
  reloading(): Promise<void> {
    return this.#send('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`)
  }

  stopping(): Promise<void> {
    return this.#send('STOPPING=1', 'STATUS=Closing connections')
  }

  /** Ends the pings of the watchdog. Idempotent. */
  close(): void {
    clearInterval(this.#watchdog)
  }

  #ping(): void {
    if (this.#isPinging) return
    this.#isPinging = true
    void this.#send('WATCHDOG=1').finally(() => {
      this.#isPinging = false
    })
  }

  /** Never rejects: a gateway that cannot tell its state serves all the same. */
  #send(...message: readonly string[]): Promise<void> {
    const { PATH } = process.env
    if (this.#socket === undefined) return Promise.resolve()
    const env = { PATH, NOTIFY_SOCKET: this.#socket }
    this.#sent = this.#sent.then(
      () =>
        new Promise(resolve => {
          execFile('systemd-notify', message, { env, timeout: notifyTimeout, killSignal: 'SIGKILL' }, error => {
            if (error && !this.#hasFailed)
              this.#log.warn({ err: error }, 'systemd-notify failed: systemd does not know the state')
            this.#hasFailed = error !== null
            resolve()
          })
        }),
    )
    return this.#sent
  }
}
