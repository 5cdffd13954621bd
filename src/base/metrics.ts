import {
  Counter,
  collectDefaultMetrics,
  Gauge,
  Histogram,
  type MetricObjectWithValues,
  type MetricValue,
  Registry,
} from 'prom-client'
import { errorReasons } from './errors.js'
import type { SliceCause, SliceFigures } from './slice-monitor.js'
import { version } from './version.js'

export const transports = ['websocket', 'tcp', 'tls'] as const
const states = ['opening', 'open', 'closing'] as const
const reloadResults = ['applied', 'refused'] as const
const deniedActions = ['publish', 'subscribe', 'receive'] as const
const sessionEndReasons = ['user-limit', 'anonymous-limit', 'total-limit', 'expired'] as const
const sessionBounds = ['maxQueuedMessages', 'maxSessionBytes', 'maxSessionsBytes'] as const
const subscriptionBounds = [
  'maxSubscriptions',
  'maxSubscriptionBytes',
  'maxSubscriptionsBytes',
  'maxSessionsBytes',
] as const

/** How a reload of the configuration ended; `refused`: nothing has changed. */
export type ReloadResult = (typeof reloadResults)[number]
/** The transport of a connection: `transport` in the metrics and the log. */
export type Transport = (typeof transports)[number]
/** The state of a connection: `opening` until the broker has answered, `open` while bytes pass, `closing` after that. */
export type ConnectionState = (typeof states)[number]
/** An action that was denied to a client of the embedded broker; `receive` is for messages in its session. */
export type DeniedAction = (typeof deniedActions)[number]
/** Why the embedded broker ended a session: the limit that a new one exceeded, or its expiry. */
export type SessionEndReason = (typeof sessionEndReasons)[number]
/** The option that limits the queue of a session. */
export type SessionBound = (typeof sessionBounds)[number]
/** The option that limits filters. */
export type SubscriptionBound = (typeof subscriptionBounds)[number]

/**
 * Bytes and frames of one connection. Plain numbers, because they are counted on the data path; they are summed up at each scrape.
 */
export interface Traffic {
  bytesIn: number
  bytesOut: number
  framesIn: number
  framesOut: number
}

/** Figures of push since the start. */
export interface PushFigures {
  /** Whether its session with the broker is connected. */
  readonly connected: boolean
  readonly subscribers: number
  /** Subscribers that are being replayed events. */
  readonly catchingUp: number
  /** Events in the journal. */
  readonly journalEvents: number
  /** The number of the newest event. */
  readonly newest: number
  /** Events given to subscribers; of them, those replayed, and retained messages. */
  readonly delivered: number
  readonly replayed: number
  readonly retained: number
  readonly gaps: number
  readonly cutOff: number
  /** Listening devices on all transports, and MQTT clients of the embedded broker. */
  readonly listeners: number
  /** Bytes of the filters of subscribers, and subscriptions refused because of their limit. */
  readonly filterBytes: number
  readonly filtersRefused: number
  /** Presence messages, and those that could not be published. */
  readonly presencePublished: number
  readonly presenceDropped: number
  /** Messages about clients that connect and disconnect. */
  readonly clientsPublished: number
  readonly clientsDropped: number
  /** Requested receipts, and their events, whose deadline has not passed. */
  readonly receiptsOutstanding: { readonly devices: number; readonly events: number }
}

/** How an order of a certificate ended. */
export type OrderResult = 'success' | 'failure'

/** How a request over HTTP ended. */
export type RequestOutcome = 'answered' | 'timeout' | 'abandoned' | 'refused'

const requestOutcomes: readonly RequestOutcome[] = ['answered', 'timeout', 'abandoned', 'refused']

/** Outcomes of receipts: `stored`, also a further status of a device; `missed` for each requested device without one at the deadline. */
export type ReceiptOutcome = 'stored' | 'missed'

const receiptOutcomes: readonly ReceiptOutcome[] = ['stored', 'missed']

/** Figures of mails, or of the calls of a webhook, since the start. */
export interface NotificationFigures {
  /** Mails sent, one for each recipient, or calls accepted; those given up; failed attempts with a retry. */
  readonly sent: number
  readonly failed: number
  readonly retried: number
  /** Mails in the queue; for a webhook, messages and events. */
  readonly waiting: number
  /** Messages and events that matched rules; and those of them that are only counted, as there was no room. */
  readonly collected: number
  readonly dropped: number
}

/** Figures of the embedded broker's retained messages. */
export interface RetainedFigures {
  readonly messages: number
  /** Of their topics and payloads. */
  readonly bytes: number
  /** Messages that were not stored, because of a limit. */
  readonly refused: number
  /** Clients to which retained messages of new subscriptions are being sent. */
  readonly scans: number
}

/** Metrics with their values, as the registry of a process has them. */
export type MetricValues = readonly MetricObjectWithValues<MetricValue<string>>[]

/**
 * The values by series, named as in the text format of Prometheus: `mqway_refusals_total{reason="tls-failed"}`. Values of 0, values that are no number, and
 * the buckets of histograms are left out.
 */
export function seriesOf(metrics: MetricValues): Record<string, number> {
  const series: [string, number][] = []
  for (const metric of metrics) {
    for (const { value, labels, metricName = metric.name } of metric.values as readonly NamedValue[]) {
      if (value === 0 || !Number.isFinite(value) || metricName.endsWith('_bucket')) continue
      const named = Object.entries(labels).map(([label, text]) => `${label}=${JSON.stringify(text)}`)
      series.push([named.length === 0 ? metricName : `${metricName}{${named.join()}}`, value])
    }
  }
  return Object.fromEntries(series)
}

/** The values of a histogram have names of their own. */
type NamedValue = MetricValue<string> & { readonly metricName?: string }

/** The program's metrics, on a registry of their own. */
export type Metrics = ReturnType<typeof createMetrics>

/** Creates the metrics; every series exists from the start, at zero. */
export function createMetrics() {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const { gauge, counter, counterBy } = seriesIn(registry)
  gauge('mqway_info', 'The running version', () => [[{ version }, 1]], ['version'])

  const connections: Record<Transport, Record<ConnectionState, number>> = {
    websocket: { opening: 0, open: 0, closing: 0 },
    tcp: { opening: 0, open: 0, closing: 0 },
    tls: { opening: 0, open: 0, closing: 0 },
  }
  const connectionSamples = (): Sample[] =>
    transports.flatMap(transport => states.map(state => [{ transport, state }, connections[transport][state]] as const))
  gauge('mqway_connections', 'Connections of clients, by transport and state', connectionSamples, [
    'transport',
    'state',
  ])
  const delays = new Counter({
    name: 'mqway_publish_delays_total',
    help: 'Times that a connection was not read for a while because it published too fast (limits.publishesPerSecond)',
    registers: [registry],
  })
  const connectSeconds = new Histogram({
    name: 'mqway_upstream_connect_seconds',
    help: 'Time that the broker took to accept a connection',
    buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5],
    registers: [registry],
  })
  const expiry = new Gauge({
    name: 'mqway_certificate_expiry_seconds',
    help: 'When the served certificate expires, in seconds since 1970; 0 without TLS',
    registers: [registry],
  })

  const open: Record<Transport, Set<Traffic>> = { websocket: new Set(), tcp: new Set(), tls: new Set() }
  const past: Record<Transport, Traffic> = {
    websocket: noTraffic(),
    tcp: noTraffic(),
    tls: noTraffic(),
  }
  const trafficCounter = (name: string, help: string, inKey: keyof Traffic, outKey: keyof Traffic): void => {
    const sample = (transport: Transport, direction: 'in' | 'out'): Sample => {
      const key = direction === 'in' ? inKey : outKey
      let sum = past[transport][key]
      for (const traffic of open[transport]) sum += traffic[key]
      return [{ transport, direction }, sum]
    }
    const read = (): Sample[] => transports.flatMap(transport => [sample(transport, 'in'), sample(transport, 'out')])
    counter(name, help, read, ['transport', 'direction'])
  }
  trafficCounter('mqway_bytes_total', 'MQTT bytes from clients (in) and to them (out)', 'bytesIn', 'bytesOut')
  trafficCounter('mqway_frames_total', 'WebSocket frames from clients (in) and to them (out)', 'framesIn', 'framesOut')

  let droppedLines = 0
  counter(
    'mqway_access_log_dropped_total',
    'Lines of the access log that were not written: the disk is full or too slow',
    () => droppedLines,
  )
  const loaded = { at: Date.now() / 1000, isCurrent: true }
  const lastSuccess = 'When the configuration was loaded last, by the start or a reload, in seconds since 1970'
  gauge('mqway_config_last_reload_success_timestamp_seconds', lastSuccess, () => loaded.at)
  const isCurrent = '0 after a reload that was refused, because the configuration is invalid; 1 otherwise'
  gauge('mqway_config_last_reload_successful', isCurrent, () => Number(loaded.isCurrent))
  const countReload = counterBy(
    'mqway_config_reloads_total',
    'Reloads of the configuration, by result',
    'result',
    reloadResults,
  )

  return {
    registry,
    /** Counts lines that are missing in the access log. */
    accessLinesDropped(lines: number): void {
      droppedLines += lines
    },
    /** Counts a reload of the configuration. */
    reloaded(result: ReloadResult): void {
      countReload(result)
      loaded.isCurrent = result === 'applied'
      if (loaded.isCurrent) loaded.at = Date.now() / 1000
    },
    /** Counts a connection through its states. Call the returned function for each change; `'ended'` is final. */
    trackConnection(transport: Transport, traffic: Traffic): (state: ConnectionState | 'ended') => void {
      let current: ConnectionState | undefined
      let ended = false
      open[transport].add(traffic)
      return state => {
        if (ended || state === current) return
        if (current) connections[transport][current]--
        if (state === 'ended') {
          ended = true
          open[transport].delete(traffic)
          const total = past[transport]
          for (const key of Object.keys(total) as (keyof Traffic)[]) total[key] += traffic[key]
          return
        }
        current = state
        connections[transport][state]++
      }
    },
    /** Counts a refusal before a connection was open. */
    refused: counterBy(
      'mqway_refusals_total',
      'Connections and handshakes that were refused, by reason',
      'reason',
      errorReasons,
    ),
    /** Counts the end of an open connection. */
    ended: counterBy('mqway_endings_total', 'Connections that were open and ended, by reason', 'reason', errorReasons),
    /** Counts a message or a filter that the embedded broker denied. */
    denied: counterBy(
      'mqway_denied_total',
      'Messages and topic filters that the embedded broker refused, by action',
      'action',
      deniedActions,
    ),
    /** The sessions of the embedded broker, and the bytes that they take. */
    sessions: {
      /** Counts a session that ended. */
      ended: counterBy(
        'mqway_sessions_ended_total',
        'Sessions that the embedded broker ended: at a bound of their number, or because their client stayed away',
        'reason',
        sessionEndReasons,
      ),
      /** Counts a message that was not queued for a session. */
      dropped: counterBy(
        'mqway_session_messages_dropped_total',
        'Messages that the embedded broker did not queue for a session, by the option that bounds them',
        'option',
        sessionBounds,
        bound => `mqtt.${bound}`,
      ),
      watch(read: () => { readonly sessions: number; readonly bytes: number }): void {
        gauge('mqway_sessions', 'Persistent sessions of the embedded broker', () => read().sessions)
        gauge('mqway_session_bytes', 'Bytes of queued messages and filters of these sessions', () => read().bytes)
      },
    },
    /** The filters of the embedded broker's connected clients, and the bytes that they take. */
    filters: {
      /** Counts a refused filter. */
      refused: counterBy(
        'mqway_subscriptions_refused_total',
        'Topic filters that the embedded broker refused, by the option that bounds them',
        'option',
        subscriptionBounds,
        bound => `mqtt.${bound}`,
      ),
      watch(read: () => { readonly filters: number; readonly bytes: number }): void {
        const help = 'Topic filters of the embedded broker’s connected clients'
        gauge('mqway_subscriptions', help, () => read().filters)
        gauge('mqway_subscription_bytes', 'Bytes that these take', () => read().bytes)
      },
    },
    requests: {
      /** Counts the end of a request over HTTP. */
      ended: counterBy(
        'mqway_requests_total',
        'Requests of POST /v1/request that ended, by outcome',
        'outcome',
        requestOutcomes,
      ),
      watch(read: () => number): void {
        gauge('mqway_requests_pending', 'Requests of POST /v1/request that wait for their response', read)
      },
    },
    /** Counts receipts. */
    receipts: counterBy(
      'mqway_push_receipts_total',
      'Receipts that were stored, and requested ones that were missed at the deadline',
      'outcome',
      receiptOutcomes,
    ),
    /** Counts a pause of a connection that published too fast. */
    delayed: () => delays.inc(),
    /** Adds seconds of a pause of one direction of a tunnel because of its rate limit. */
    throttled: counterBy(
      'mqway_throttled_seconds_total',
      'Seconds for which one direction of a connection stood still because of limits.bytesPerSecond',
      'direction',
      ['in', 'out'],
    ),
    /** Records how long the broker took to accept a connection, in seconds. */
    upstreamConnected: (seconds: number) => connectSeconds.observe(seconds),
    /** Counts an order of a certificate that has ended. */
    acmeOrdered: counterBy<OrderResult>(
      'mqway_acme_orders_total',
      'Certificates ordered by ACME (https.acme), by result',
      'result',
      ['success', 'failure'],
    ),
    /** Sets the expiry of the served certificate (milliseconds since 1970). */
    certificateExpires: (time: number) => expiry.set(time / 1000),
    // Set the source of figures, which are read at each scrape.
    watchBuffers(read: () => number): void {
      gauge('mqway_buffered_bytes', 'Buffered bytes for clients and brokers that are slower than the other side', read)
    },
    watchBodies(read: () => number): void {
      gauge('mqway_body_bytes', 'Buffered bytes of request bodies and WebSocket messages', read)
    },
    watchSlices(read: () => ReadonlyMap<SliceCause, SliceFigures>): void {
      const samples = (value: (figures: SliceFigures) => number) => (): Sample[] =>
        [...read()].map(([cause, figures]) => [{ cause }, value(figures)])
      const slow = 'Times that the event loop was busy with one thing for 20 ms or more'
      const longest = 'The longest of these since the start'
      const labels = ['cause']
      counter(
        'mqway_slow_slices_total',
        slow,
        samples(figures => figures.count),
        labels,
      )
      counter(
        'mqway_slow_slices_seconds_total',
        'Their total time',
        samples(figures => figures.seconds),
        labels,
      )
      gauge(
        'mqway_longest_slice_seconds',
        longest,
        samples(figures => figures.longest),
        labels,
      )
    },
    watchRetained(read: () => RetainedFigures): void {
      const topics = 'Topics with a retained message in the embedded broker'
      const refused = 'Retained messages that were delivered and not stored, because their publisher had no room'
      const scans = 'Clients to which retained messages of new subscriptions are being sent'
      gauge('mqway_retained_messages', topics, () => read().messages)
      gauge('mqway_retained_bytes', 'Bytes of their topics, payloads and properties', () => read().bytes)
      counter('mqway_retained_refused_total', refused, () => read().refused)
      gauge('mqway_retained_scans', scans, () => read().scans)
    },
    watchPush(read: () => PushFigures): void {
      const filtersRefused = 'Subscriptions that were refused at push.maxSubscriptionsBytes'
      const deliveries = 'Events given to subscribers: as they came, replayed from the journal, and retained messages'
      const dropped = 'Presence messages that were dropped: the broker was unreachable, or too many were queued'
      gauge('mqway_push_connected', '1 while push has its session with the broker', () => Number(read().connected))
      gauge('mqway_push_catching_up', 'Subscribers that are being replayed events', () => read().catchingUp)
      gauge('mqway_push_subscribers', 'Event streams, waiting polls, and sockets', () => read().subscribers)
      const listeners = 'Listening devices, and MQTT clients of the embedded broker'
      gauge('mqway_push_listeners', listeners, () => read().listeners)
      gauge('mqway_push_filter_bytes', 'Bytes of the topic filters of subscribers', () => read().filterBytes)
      counter('mqway_push_filters_refused_total', filtersRefused, () => read().filtersRefused)
      gauge('mqway_push_journal_events', 'Events in the journal', () => read().journalEvents)
      gauge('mqway_push_newest_event', 'The number of the newest event in its epoch', () => read().newest)
      const deliverySamples = (): Sample[] => {
        const { delivered, replayed, retained } = read()
        const live = delivered - replayed - retained
        return [
          [{ kind: 'live' }, live],
          [{ kind: 'replayed' }, replayed],
          [{ kind: 'retained' }, retained],
        ]
      }
      counter('mqway_push_deliveries_total', deliveries, deliverySamples, ['kind'])
      counter('mqway_push_gaps_total', 'Gaps sent to subscribers', () => read().gaps)
      counter('mqway_push_cut_off_total', 'Subscribers disconnected because they read too slowly', () => read().cutOff)
      counter('mqway_push_presence_messages_total', 'Presence messages', () => read().presencePublished)
      counter('mqway_push_presence_dropped_total', dropped, () => read().presenceDropped)
      const droppedClients = 'Messages about connected clients that were not published: rate, queue, or broker away'
      counter('mqway_push_client_messages_total', 'Messages about connected clients', () => read().clientsPublished)
      counter('mqway_push_client_messages_dropped_total', droppedClients, () => read().clientsDropped)
      const [requested, events] = ['Requested receipts, answered or not, whose deadline has not passed', 'Their events']
      gauge('mqway_push_receipts_outstanding', requested, () => read().receiptsOutstanding.devices)
      gauge('mqway_push_receipts_outstanding_events', events, () => read().receiptsOutstanding.events)
    },
    watchGateways(read: () => number): void {
      const known =
        'Gateways whose listeners are in the presence; one that begins again counts twice until its lease ends'
      gauge('mqway_push_presence_gateways', known, read)
    },
    watchMails(read: () => NotificationFigures): void {
      const retries = 'Failed attempts to send a mail that will be retried'
      const collected = 'Messages and events that matched rules of mails, once for each rule'
      counter('mqway_mails_sent_total', 'Mails sent, one for each recipient', () => read().sent)
      counter('mqway_mails_failed_total', 'Mails that could not be sent and were given up', () => read().failed)
      counter('mqway_mail_retries_total', retries, () => read().retried)
      gauge('mqway_mails_waiting', 'Queued mails', () => read().waiting)
      counter('mqway_mail_events_total', collected, () => read().collected)
      counter('mqway_mail_events_dropped_total', 'Of these, those that a mail only counts', () => read().dropped)
    },
    /** @param read the figures of each webhook, by the name of its rule */
    watchWebhooks(read: () => ReadonlyMap<string, NotificationFigures>): void {
      const samples = (name: keyof NotificationFigures) => (): Sample[] =>
        [...read()].map(([rule, figures]) => [{ rule }, figures[name]])
      const failed = 'Webhook calls that were given up; their messages are in the dead-letter log'
      const retries = 'Failed webhook calls that will be retried'
      const waiting = 'Messages and events that a webhook has not accepted yet'
      const collected = 'Messages and events that matched rules of webhooks'
      const dropped = 'Of these, those that had no room in the queue; they are in the dead-letter log'
      const labels = ['rule']
      counter('mqway_webhook_calls_total', 'Webhook calls that were accepted', samples('sent'), labels)
      counter('mqway_webhook_calls_failed_total', failed, samples('failed'), labels)
      counter('mqway_webhook_retries_total', retries, samples('retried'), labels)
      gauge('mqway_webhook_events_waiting', waiting, samples('waiting'), labels)
      counter('mqway_webhook_events_total', collected, samples('collected'), labels)
      counter('mqway_webhook_events_dropped_total', dropped, samples('dropped'), labels)
    },
    /** Removes all metrics. */
    close: () => registry.clear(),
  }
}

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number]

/** Functions that add gauges and counters whose values are read at each scrape. */
function seriesIn(registry: Registry) {
  const registers = [registry]
  type Read = () => number | readonly Sample[]
  const samplesOf = (read: Read): readonly Sample[] => {
    const value = read()
    return typeof value === 'number' ? [[{}, value]] : value
  }
  const gauge = (name: string, help: string, read: Read, labelNames: string[] = []): void => {
    new Gauge({
      ...{ name, help, labelNames, registers },
      collect() {
        for (const [labels, value] of samplesOf(read)) this.set(labels, value)
      },
    })
  }
  const counter = (name: string, help: string, read: Read, labelNames: string[] = []): void => {
    new Counter({
      ...{ name, help, labelNames, registers },
      collect() {
        this.reset()
        for (const [labels, value] of samplesOf(read)) this.inc(labels, value)
      },
    })
  }
  /**
   * Adds a counter with one label. Its counts are plain numbers between scrapes, because the library finds a series by sorting and joining
   * its labels each time.
   */
  const counterBy = <T extends string>(
    name: string,
    help: string,
    label: string,
    values: readonly T[],
    labelOf: (value: T) => string = value => value,
  ): ((value: T, amount?: number) => void) => {
    const counts = new Map(values.map(value => [value, 0]))
    counter(name, help, () => [...counts].map(([value, count]) => [{ [label]: labelOf(value) }, count]), [label])
    return (value, amount = 1) => {
      counts.set(value, (counts.get(value) ?? 0) + amount)
    }
  }
  return { gauge, counter, counterBy }
}

/** Counts that start at zero. */
export function noTraffic(): Traffic {
  return { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0 }
}
