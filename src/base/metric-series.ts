import { Counter, Gauge, type Registry } from 'prom-client'

/** Adds a metric whose value is read from the figures. */
type Series<T> = (name: string, help: string, value: (figures: T) => number) => void

/**
 * Creates functions that add gauges and counters of figures, which are read at each scrape.
 *
 * @param read called once for each metric and scrape
 */
export function seriesOf<T>(
  registry: Registry,
  read: () => T,
): { readonly gauge: Series<T>; readonly counter: Series<T> } {
  const registers = [registry]
  return {
    gauge: (name, help, value) => {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(value(read()))
        },
      })
    },
    counter: (name, help, value) => {
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset()
          this.inc(value(read()))
        },
      })
    },
  }
}
