import { Counter, type Registry } from 'prom-client'
import { seriesOf } from './metric-series.js'

const bounds = ['maxSubscriptions', 'maxSubscriptionBytes', 'maxSubscriptionsBytes', 'maxSessionsBytes'] as const

/** The option that limits filters. */
export type SubscriptionBound = (typeof bounds)[number]

/** The filters of the embedded broker's connected clients, and the bytes that they take. */
export interface SubscriptionFigures {
  readonly filters: number
  readonly bytes: number
}

/** The metrics of the embedded broker's subscriptions. */
export interface SubscriptionMetrics {
  /** Counts a refused filter. */
  refused(bound: SubscriptionBound): void
  /** Sets the source of the figures. Called once. */
  watch(read: () => SubscriptionFigures): void
}

/** Creates the metrics of subscriptions; every series of a counter exists from the start, at zero. */
export function subscriptionMetrics(registry: Registry): SubscriptionMetrics {
  const registers = [registry]
  const refused = new Counter({
    name: 'mqway_subscriptions_refused_total',
    help: 'Topic filters that the embedded broker refused, by the option that bounds them',
    labelNames: ['option'],
    registers,
  })
  for (const bound of bounds) refused.inc({ option: `mqtt.${bound}` }, 0)
  return {
    refused: bound => refused.inc({ option: `mqtt.${bound}` }),
    watch: read => {
      const { gauge } = seriesOf(registry, read)
      gauge('mqway_subscriptions', 'Topic filters of the embedded broker’s connected clients', ({ filters }) => filters)
      gauge('mqway_subscription_bytes', 'Bytes that these take', ({ bytes }) => bytes)
    },
  }
}
