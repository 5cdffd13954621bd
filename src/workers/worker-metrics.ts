import { type Aggregator, AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { MetricValues } from '../base/metrics.js'

/** A worker with metrics. */
export interface MetricsSource {
  /** Rejects if it does not answer in time. */
  metrics(): Promise<MetricValues>
}

/** How values of several workers become one, where that is not their sum. */
const aggregators: Readonly<Record<string, Aggregator>> = {
  mqway_info: 'first',
  mqway_certificate_expiry_seconds: 'min',
  mqway_longest_slice_seconds: 'max',
  // All workers reload together.
  mqway_config_reloads_total: 'max',
  mqway_config_last_reload_successful: 'min',
  mqway_config_last_reload_success_timestamp_seconds: 'min',
  // All workers have the same journal, and push works if it does in each of them.
  mqway_push_connected: 'min',
  mqway_push_journal_events: 'max',
  mqway_push_newest_event: 'max',
  // All workers have the same presence.
  mqway_push_listeners: 'max',
  mqway_push_presence_gateways: 'max',
  // Each worker knows the requests of all.
  mqway_push_receipts_outstanding: 'max',
  mqway_push_receipts_outstanding_events: 'max',
  process_start_time_seconds: 'min',
  nodejs_version_info: 'first',
  nodejs_eventloop_lag_seconds: 'max',
  nodejs_eventloop_lag_mean_seconds: 'max',
  nodejs_eventloop_lag_stddev_seconds: 'max',
  nodejs_eventloop_lag_p50_seconds: 'max',
  nodejs_eventloop_lag_p90_seconds: 'max',
  nodejs_eventloop_lag_p99_seconds: 'max',
}

/**
 * The metrics of all workers and of the primary process as one. Counters of a worker that has ended stay in the sums, as of the last time that
 * they were read, because Prometheus takes a sum that falls for a restart.
 */
export class WorkerMetrics {
  readonly #workers: number
  /** Of the primary process. */
  readonly #registry = new Registry()
  readonly #missing: Gauge
  readonly #ends: Counter
  /** Counters as they were read last. */
  readonly #last = new Map<MetricsSource, MetricValues>()
  /** Counters of the workers that have ended. */
  readonly #past: MetricValues[] = []
  #reading: Promise<MetricValues> | undefined

  /** @param workers number of workers, running or not */
  constructor(workers: number) {
    this.#workers = workers
    const registers = [this.#registry]
    collectDefaultMetrics({ register: this.#registry })
    new Gauge({ name: 'mqway_workers', help: 'Worker processes (option workers)', registers }).set(workers)
    this.#missing = new Gauge({
      name: 'mqway_workers_missing',
      help: 'Workers whose gauges are not in these metrics: they are not running, or do not answer',
      registers,
    })
    this.#ends = new Counter({
      name: 'mqway_worker_ends_total',
      help: 'Workers that ended and were replaced',
      registers,
    })
  }

  add(source: MetricsSource): void {
    this.#last.set(source, [])
  }

  ended(source: MetricsSource): void {
    const last = this.#last.get(source)
    if (!last) return
    this.#last.delete(source)
    this.#ends.inc()
    if (last.length > 0) this.#past.push(last)
  }

  /** Several requests at the same time get one result. */
  read(): Promise<MetricValues> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #read(): Promise<MetricValues> {
    const sources = [...this.#last.keys()]
    const results = await Promise.allSettled(sources.map(source => source.metrics()))
    let answered = 0
    const all: MetricValues[] = []
    for (const [index, source] of sources.entries()) {
      const result = results[index]
      const isThere = this.#last.has(source)
      if (result?.status === 'fulfilled' && isThere) {
        answered += 1
        all.push(result.value)
        this.#last.set(source, result.value.filter(isCounter))
      } else all.push(this.#last.get(source) ?? [])
    }
    this.#missing.set(this.#workers - answered)
    // Before the next `await`: a worker that ends then is in `all` already.
    const before = this.#past.splice(0)
    const own = await this.#registry.getMetricsAsJSON()
    const past = await aggregate(before).getMetricsAsJSON()
    this.#past.push(past)
    return aggregate([...all, past, own]).getMetricsAsJSON()
  }
}

/** Metrics in the text format of Prometheus. */
export function prometheusText(values: MetricValues): Promise<string> {
  return aggregate([values]).metrics()
}

function isCounter({ type }: MetricValues[number]): boolean {
  return ['counter', 'histogram'].includes(String(type))
}

/** The library's own type has no `aggregator`. */
function aggregate(all: readonly MetricValues[]): Registry {
  const withAggregators = all.map(values => values.map(each => ({ ...each, ...aggregatorOf(each) })))
  return AggregatorRegistry.aggregate(withAggregators)
}

function aggregatorOf({ name }: MetricValues[number]): { readonly aggregator?: Aggregator } {
  const aggregator = aggregators[name]
  return aggregator ? { aggregator } : {}
}
