import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { type ErrorReason, errorReasons } from './errors.js'
import { seriesOf } from './metric-series.js'
import { type SessionMetrics, sessionMetrics } from './session-metrics.js'
import type { SliceCause, SliceFigures } from './slice-monitor.js'
import { type SubscriptionMetrics, subscriptionMetrics } from './subscription-metrics.js'
import { version } from './version.js'

/** The transport of a connection: `transport` in the metrics and the log. */
export type Transport = 'websocket' | 'tcp'

/** The state of a connection: `opening` until the broker has answered, `open` while bytes pass, `closing` after that. */
export type ConnectionState = 'opening' | 'open' | 'closing'

/** An action that was denied to a client of the embedded broker; `receive` is for messages in its session. */
export type DeniedAction = 'publish' | 'subscribe' | 'receive'

const deniedActions = ['publish', 'subscribe', 'receive'] as const satisfies readonly DeniedAction[]
const transports = ['websocket', 'tcp'] as const satisfies readonly Transport[]
const states = ['opening', 'open', 'closing'] as const satisfies readonly ConnectionState[]

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
}

/** Figures of mails since the start. */
export interface MailFigures {
  /** Mails sent, one for each recipient; mails given up; failed attempts with a retry. */
  readonly sent: number
  readonly failed: number
  readonly retried: number
  /** Mails in the queue. */
  readonly waiting: number
  /** Messages and events that matched rules; and those of them that a mail only counts. */
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

/** The program's metrics, on a registry of their own. */
export interface Metrics {
  readonly registry: Registry
  readonly sessions: SessionMetrics
  readonly filters: SubscriptionMetrics
  /** Counts a connection through its states. Call the returned function for each change; `'ended'` is final. */
  trackConnection(transport: Transport, traffic: Traffic): (state: ConnectionState | 'ended') => void
  /** Counts a refusal before a connection was open. */
  refused(reason: ErrorReason): void
  /** Counts the end of an open connection. */
  ended(reason: ErrorReason): void
  /** Counts a message or a filter that the embedded broker denied. */
  denied(action: DeniedAction): void
  /** Counts a pause of a connection that published too fast. */
  delayed(): void
  /** Adds seconds of a pause of one direction of a tunnel because of its rate limit. */
  throttled(direction: 'in' | 'out', seconds: number): void
  /** Records how long the broker took to accept a connection, in seconds. */
  upstreamConnected(seconds: number): void
  /** Sets the source of the bytes buffered for all connections. */
  watchBuffers(read: () => number): void
  /** Sets the source of the bytes of buffered bodies and WebSocket messages. */
  watchBodies(read: () => number): void
  /** Sets the source of the figures of push. */
  watchPush(read: () => PushFigures): void
  /** Sets the source of the figures of mails. */
  watchMails(read: () => MailFigures): void
  /** Sets the source of the figures of retained messages. */
  watchRetained(read: () => RetainedFigures): void
  /** Sets the source of the figures of slow slices. */
  watchSlices(read: () => ReadonlyMap<SliceCause, SliceFigures>): void
  /** Sets the expiry of the served certificate (milliseconds since 1970). */
  certificateExpires(time: number): void
  /** Removes all metrics. */
  close(): void
}

/** Creates the metrics; every series exists from the start, at zero. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  new Gauge({ name: 'mqway_info', help: 'The running version', labelNames: ['version'], registers: [registry] }).set(
    { version },
    1,
  )

  // Plain numbers between scrapes, because the library finds a series by sorting and joining its labels each time.
  const connections: Record<Transport, Record<ConnectionState, number>> = {
    websocket: { opening: 0, open: 0, closing: 0 },
    tcp: { opening: 0, open: 0, closing: 0 },
  }
  new Gauge({
    name: 'mqway_connections',
    help: 'Connections of clients, by transport and state',
    labelNames: ['transport', 'state'],
    registers: [registry],
    collect() {
      for (const transport of transports) {
        for (const state of states) this.set({ transport, state }, connections[transport][state])
      }
    },
  })
  const reasonCounter = (name: string, help: string): ((reason: ErrorReason) => void) => {
    const counts = new Map<ErrorReason, number>(errorReasons.map(reason => [reason, 0]))
    new Counter({
      name,
      help,
      labelNames: ['reason'],
      registers: [registry],
      collect() {
        this.reset()
        for (const [reason, count] of counts) this.inc({ reason }, count)
      },
    })
    return reason => {
      counts.set(reason, (counts.get(reason) ?? 0) + 1)
    }
  }
  const countRefused = reasonCounter('mqway_refusals_total', 'Connections and handshakes that were refused, by reason')
  const countEnded = reasonCounter('mqway_endings_total', 'Connections that were open and ended, by reason')
  const denied: Record<DeniedAction, number> = { publish: 0, subscribe: 0, receive: 0 }
  new Counter({
    name: 'mqway_denied_total',
    help: 'Messages and topic filters that the embedded broker refused, by action',
    labelNames: ['action'],
    registers: [registry],
    collect() {
      this.reset()
      for (const action of deniedActions) this.inc({ action }, denied[action])
    },
  })
  const delays = new Counter({
    name: 'mqway_publish_delays_total',
    help: 'Times that a connection was not read for a while because it published too fast (limits.publishesPerSecond)',
    registers: [registry],
  })
  const throttled = new Counter({
    name: 'mqway_throttled_seconds_total',
    help: 'Seconds for which one direction of a connection stood still because of limits.bytesPerSecond',
    labelNames: ['direction'],
    registers: [registry],
  })
  throttled.inc({ direction: 'in' }, 0)
  throttled.inc({ direction: 'out' }, 0)
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

  const open: Record<Transport, Set<Traffic>> = { websocket: new Set(), tcp: new Set() }
  const past: Record<Transport, Traffic> = { websocket: noTraffic(), tcp: noTraffic() }
  const sums = (transport: Transport, key: keyof Traffic): number => {
    let sum = past[transport][key]
    for (const traffic of open[transport]) sum += traffic[key]
    return sum
  }
  const trafficCounter = (name: string, help: string, inKey: keyof Traffic, outKey: keyof Traffic): void => {
    new Counter({
      name,
      help,
      labelNames: ['transport', 'direction'],
      registers: [registry],
      collect() {
        this.reset()
        for (const transport of transports) {
          this.inc({ transport, direction: 'in' }, sums(transport, inKey))
          this.inc({ transport, direction: 'out' }, sums(transport, outKey))
        }
      },
    })
  }
  trafficCounter('mqway_bytes_total', 'MQTT bytes from clients (in) and to them (out)', 'bytesIn', 'bytesOut')
  trafficCounter('mqway_frames_total', 'WebSocket frames from clients (in) and to them (out)', 'framesIn', 'framesOut')

  return {
    registry,
    trackConnection(transport, traffic) {
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
    refused: countRefused,
    ended: countEnded,
    sessions: sessionMetrics(registry),
    filters: subscriptionMetrics(registry),
    denied: action => {
      denied[action]++
    },
    delayed: () => delays.inc(),
    throttled: (direction, seconds) => throttled.inc({ direction }, seconds),
    upstreamConnected: seconds => connectSeconds.observe(seconds),
    watchBuffers: read =>
      seriesOf(registry, read).gauge(
        'mqway_buffered_bytes',
        'Buffered bytes for clients and brokers that are slower than the other side',
        bytes => bytes,
      ),
    watchBodies: read =>
      seriesOf(registry, read).gauge(
        'mqway_body_bytes',
        'Buffered bytes of request bodies and WebSocket messages',
        bytes => bytes,
      ),
    watchSlices: read => watchSlices(registry, read),
    watchRetained: read => watchRetained(registry, read),
    watchPush: read => watchPush(registry, read),
    watchMails: read => watchMails(registry, read),
    certificateExpires: time => expiry.set(time / 1000),
    close: () => registry.clear(),
  }
}

function watchMails(registry: Registry, read: () => MailFigures): void {
  const { gauge, counter } = seriesOf(registry, read)
  counter('mqway_mails_sent_total', 'Mails sent, one for each recipient', ({ sent }) => sent)
  counter('mqway_mails_failed_total', 'Mails that could not be sent and were given up', ({ failed }) => failed)
  counter('mqway_mail_retries_total', 'Failed attempts to send a mail that will be retried', ({ retried }) => retried)
  gauge('mqway_mails_waiting', 'Queued mails', ({ waiting }) => waiting)
  const collected = 'Messages and events that matched rules of mails, once for each rule'
  counter('mqway_mail_events_total', collected, figures => figures.collected)
  const dropped = 'Of these, those that a mail only counts'
  counter('mqway_mail_events_dropped_total', dropped, figures => figures.dropped)
}

function watchSlices(registry: Registry, read: () => ReadonlyMap<SliceCause, SliceFigures>): void {
  const settings = { labelNames: ['cause'], registers: [registry] }
  const counter = (name: string, help: string, value: (figures: SliceFigures) => number): void => {
    new Counter({
      ...{ name, help, ...settings },
      collect() {
        this.reset()
        for (const [cause, figures] of read()) this.inc({ cause }, value(figures))
      },
    })
  }
  counter(
    'mqway_slow_slices_total',
    'Times that the event loop was busy with one thing for 20 ms or more',
    ({ count }) => count,
  )
  counter('mqway_slow_slices_seconds_total', 'Their total time', ({ seconds }) => seconds)
  new Gauge({
    ...{ name: 'mqway_longest_slice_seconds', help: 'The longest of these since the start', ...settings },
    collect() {
      for (const [cause, { longest }] of read()) this.set({ cause }, longest)
    },
  })
}

function watchRetained(registry: Registry, read: () => RetainedFigures): void {
  const { gauge, counter } = seriesOf(registry, read)
  gauge('mqway_retained_messages', 'Topics with a retained message in the embedded broker', ({ messages }) => messages)
  gauge('mqway_retained_bytes', 'Bytes of their topics and payloads', ({ bytes }) => bytes)
  counter(
    'mqway_retained_refused_total',
    'Retained messages that were delivered and not stored, because their publisher had no room',
    ({ refused }) => refused,
  )
  gauge(
    'mqway_retained_scans',
    'Clients to which retained messages of new subscriptions are being sent',
    ({ scans }) => scans,
  )
}

function watchPush(registry: Registry, read: () => PushFigures): void {
  const registers = [registry]
  const { gauge, counter } = seriesOf(registry, read)
  gauge('mqway_push_connected', '1 while push has its session with the broker', ({ connected }) => Number(connected))
  gauge('mqway_push_catching_up', 'Subscribers that are being replayed events', ({ catchingUp }) => catchingUp)
  gauge('mqway_push_subscribers', 'Event streams, waiting polls, and sockets', ({ subscribers }) => subscribers)
  gauge(
    'mqway_push_listeners',
    'Listening devices, and MQTT clients of the embedded broker',
    figures => figures.listeners,
  )
  gauge('mqway_push_filter_bytes', 'Bytes of the topic filters of subscribers', ({ filterBytes }) => filterBytes)
  counter(
    'mqway_push_filters_refused_total',
    'Subscriptions that were refused at push.maxSubscriptionsBytes',
    ({ filtersRefused }) => filtersRefused,
  )
  gauge('mqway_push_journal_events', 'Events in the journal', ({ journalEvents }) => journalEvents)
  gauge('mqway_push_newest_event', 'The number of the newest event in its epoch', ({ newest }) => newest)
  new Counter({
    name: 'mqway_push_deliveries_total',
    help: 'Events given to subscribers: as they came, replayed from the journal, and retained messages',
    labelNames: ['kind'],
    registers,
    collect() {
      const { delivered, replayed, retained } = read()
      this.reset()
      this.inc({ kind: 'live' }, delivered - replayed - retained)
      this.inc({ kind: 'replayed' }, replayed)
      this.inc({ kind: 'retained' }, retained)
    },
  })
  counter('mqway_push_gaps_total', 'Gaps sent to subscribers', ({ gaps }) => gaps)
  counter('mqway_push_cut_off_total', 'Subscribers disconnected because they read too slowly', ({ cutOff }) => cutOff)
  const presence = 'Presence messages'
  counter('mqway_push_presence_messages_total', presence, figures => figures.presencePublished)
  const dropped = 'Presence messages that were dropped: the broker was unreachable, or too many were queued'
  counter('mqway_push_presence_dropped_total', dropped, figures => figures.presenceDropped)
}

/** Counts that start at zero. */
export function noTraffic(): Traffic {
  return { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0 }
}
