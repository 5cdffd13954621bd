import cluster from 'node:cluster'
import type { MetricValues } from '../base/metrics.js'
import { Channel } from './channel.js'
import { CountsView } from './counts-view.js'
import { workerVariable } from './is-worker.js'
import type { Answer, Body, RelayedAnswers, TicketKey, WorkerQuestionKind, WorkerStart } from './messages.js'
import { WorkerState } from './worker-state.js'

/** Milliseconds until the primary process counts as not answering; it waits for workers meanwhile. */
const [startTimeout, relayTimeout] = [10_000, 5000]

/** What stops a worker. */
export interface WorkerStop {
  /** Milliseconds; `undefined` if the primary process has ended. */
  readonly grace: number | undefined
}

/** What the gateway of a worker shares with those of the others. */
export interface WorkerGroup {
  /** Number of this worker, from 1 on. */
  readonly worker: number
  /** Number of workers. */
  readonly workers: number
  readonly counts: CountsView
  readonly state: WorkerState
  /** Sets the function that answers questions of this kind. */
  readonly onQuestion: Channel['onQuestion']
  /** Asks the other workers. */
  askOthers<K extends WorkerQuestionKind>(kind: K, body: Body<K>): Promise<RelayedAnswers<Answer<K>>>
  /** The metrics of all workers together. Rejects if they are not there in time. */
  allMetrics(): Promise<MetricValues>
  /** The key of TLS session tickets, where they are not in the data directory. */
  ticketKey(): Promise<TicketKey>
}

/** The primary process, as a worker sees it. */
export class PrimaryProcess {
  readonly channel = new Channel(process)
  readonly stop: Promise<WorkerStop>

  constructor() {
    this.stop = new Promise(resolve => {
      this.channel.onNotice('stop', grace => resolve({ grace }))
      this.channel.onQuestion('isRunning', () => true)
      // Emitted before `cluster` would end the process at once.
      cluster.worker?.once('disconnect', () => {
        if (cluster.worker) cluster.worker.exitedAfterDisconnect = true
        this.channel.close()
        resolve({ grace: undefined })
      })
    })
    // Not for programs that this one starts.
    delete process.env[workerVariable]
    // Service managers and terminals send signals to all processes; the primary process passes them on.
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {})
  }

  async start(): Promise<WorkerStart & { readonly group: WorkerGroup }> {
    const { channel } = this
    const start = await channel.ask('start', undefined, startTimeout)
    const group: WorkerGroup = {
      worker: start.worker,
      workers: start.workers,
      counts: new CountsView(channel, start.workers),
      state: new WorkerState(channel),
      onQuestion: channel.onQuestion.bind(channel),
      askOthers: <K extends WorkerQuestionKind>(kind: K, body: Body<K>) =>
        channel.ask('askOthers', { kind, body }, relayTimeout) as Promise<RelayedAnswers<Answer<K>>>,
      allMetrics: () => channel.ask('allMetrics', undefined, relayTimeout),
      ticketKey: () => channel.ask('ticketKey', undefined),
    }
    return { ...start, group }
  }

  /** Tells why this worker cannot start. Resolves when that is sent. */
  fail(reason: string): Promise<void> {
    return new Promise(resolve => this.channel.notify('failed', reason, resolve))
  }

  /** Closes the channel, which keeps the process running. */
  close(): void {
    if (process.connected) cluster.worker?.disconnect()
  }
}
