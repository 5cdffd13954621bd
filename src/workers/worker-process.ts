import type { ChildProcess } from 'node:child_process'
import cluster from 'node:cluster'
import { StartError } from '../base/start-error.js'
import { Channel } from './channel.js'
import { workerVariable } from './is-worker.js'
import type { WorkerStart } from './messages.js'

/** How a worker has ended. */
export interface WorkerEnd {
  readonly pid: number | undefined
  readonly exitCode: number | null
  readonly signal: NodeJS.Signals | null
  /** Its error if it could not start. */
  readonly error: StartError | undefined
  /** Milliseconds for which it has served; 0 if it was never ready. */
  readonly served: number
}

/** A worker, as the primary process sees it. */
export class WorkerProcess {
  readonly number: number
  readonly pid: number | undefined
  readonly channel: Channel
  /** Resolves to its URLs when it serves. Rejects if it ends before, with a `StartError` if it has told one. */
  readonly ready: Promise<readonly string[]>
  readonly ended: Promise<WorkerEnd>
  /** Resolves when it listens to messages. */
  readonly listening: Promise<void>
  /** Its process, for `PassedConnections`. */
  readonly child: ChildProcess
  #isListening = false
  #readySince: number | undefined
  #end: WorkerEnd | undefined

  /** Forks it with the settings of `cluster`. */
  constructor(start: WorkerStart) {
    const worker = cluster.fork({ [workerVariable]: String(start.worker) })
    this.number = start.worker
    this.pid = worker.process.pid
    this.channel = new Channel(worker.process)
    this.child = worker.process
    let error: StartError | undefined
    this.listening = new Promise(resolve => {
      this.channel.onQuestion('start', () => {
        this.#isListening = true
        resolve()
        return start
      })
    })
    this.channel.onNotice('failed', message => {
      error = new StartError(message)
    })
    this.ended = new Promise(resolve => {
      const end = (exitCode: number | null, signal: NodeJS.Signals | null): void => {
        const served = this.#readySince === undefined ? 0 : performance.now() - this.#readySince
        this.#end = { pid: this.pid, exitCode, signal, error, served }
        this.channel.close()
        resolve(this.#end)
      }
      worker.process.once('exit', end)
      // A process that cannot be made has no exit.
      worker.on('error', () => worker.process.pid === undefined && end(null, null))
    })
    this.ready = new Promise((resolve, reject) => {
      this.channel.onNotice('ready', urls => {
        this.#readySince = performance.now()
        resolve(urls)
      })
      this.ended.then(end => reject(end.error ?? new Error(`worker ${this.number} has ended: ${describeEnd(end)}`)))
    })
    this.ready.catch(() => {})
  }

  /** Whether it serves. */
  get isReady(): boolean {
    return this.#readySince !== undefined && this.#end === undefined
  }

  /** Stops it; see `Gateway.close`. */
  stop(grace: number): void {
    if (this.#isListening) this.channel.notify('stop', grace)
    else this.kill()
  }

  kill(): void {
    if (this.#end === undefined) this.child.kill('SIGKILL')
  }
}

function describeEnd({ exitCode, signal }: WorkerEnd): string {
  if (signal !== null) return `signal ${signal}`
  return exitCode === null ? 'no process could be made' : `exit code ${exitCode}`
}
