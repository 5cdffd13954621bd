import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { type ErrorReason, endingReasons } from './errors.js'
import { seriesOf } from './metric-series.js'
import { type SessionMetrics, sessionMetrics } from './session-metrics.js'
import type { SliceCause, SliceFigures } from './slice-monitor.js'
import { type SubscriptionMetrics, subscriptionMetrics } from './subscription-metrics.js'
import { version } from './version.js'

/** How a client came in: what `transport` says in the metrics and the log. */
export type Transport = 'websocket' | 'tcp'

/** Where a connection stands: `opening` until the broker has answered, `open` while bytes pass, `closing` after that. */
export type ConnectionState = 'opening' | 'open' | 'closing'

/** What a client of the embedded broker may not do: publish, subscribe, or get what waits in its session. */
export type DeniedAction = 'publish' | 'subscribe' | 'receive'

const deniedActions = ['publish', 'subscribe', 'receive'] as const satisfies readonly DeniedAction[]
const transports = ['websocket', 'tcp'] as const satisfies readonly Transport[]
const states = ['opening', 'open', 'closing'] as const satisfies readonly ConnectionState[]

/**
 * Bytes and frames of one connection, counted where they pass. Plain numbers, because this is the data path; they are
 * summed up only when somebody reads the metrics.
 */
export interface Traffic {
  bytesIn: number
  bytesOut: number
  framesIn: number
  framesOut: number
}

/** How push is, and what it has done since it began. */
export interface PushFigures {
  /** Whether it has its session with the broker. */
  readonly connected: boolean
  readonly subscribers: number
  /** Of them, those that have not yet got all that was there. */
  readonly catchingUp: number
  /** Events that are in the journal. */
  readonly journalEvents: number
  /** The number of the newest event. */
  readonly newest: number
  /** Events given to subscribers; of them, those replayed, and retained messages. */
  readonly delivered: number
  readonly replayed: number
  readonly retained: number
  readonly gaps: number
  readonly cutOff: number
  /** Devices that listen, on any transport; MQTT clients of the embedded broker too. */
  readonly listeners: number
  /** Bytes of the filters of subscribers, and subscriptions that were refused at their bound. */
  readonly filterBytes: number
  readonly filtersRefused: number
  /** Messages of who comes and goes, and those that could not be published. */
  readonly presencePublished: number
  readonly presenceDropped: number
}

/** What has become of mails since the start. */
export interface MailFigures {
  /** Mails that were taken, one for each recipient; those that were given up; and attempts that come again. */
  readonly sent: number
  readonly failed: number
  readonly retried: number
  /** Mails that wait to be sent, just now. */
  readonly waiting: number
  /** Messages and events that rules were about; and of them, those that a mail only counts. */
  readonly collected: number
  readonly dropped: number
}

/** Figures of the embedded broker's retained messages. */
export interface RetainedFigures {
  readonly messages: number
  /** Of their topics and payloads. */
  readonly bytes: number
  /** Messages that were not stored, because there was no room. */
  readonly refused: number
  /** Clients that are being sent the retained messages of their new subscriptions. */
  readonly scans: number
}

/** The program's metrics, on a registry of their own. */
export interface Metrics {
  readonly registry: Registry
  readonly sessions: SessionMetrics
  readonly filters: SubscriptionMetrics
  /** Counts a connection through its states. Call the returned function for each change; `'ended'` is final. */
  trackConnection(transport: Transport, traffic: Traffic): (state: ConnectionState | 'ended') => void
  /** One refusal before a connection was open. */
  refused(reason: ErrorReason): void
  /** One ending of a connection that was open. */
  ended(reason: ErrorReason): void
  /** One message or one filter that the embedded broker refused. */
  denied(action: DeniedAction): void
  /** One time that a connection had to wait because it published too fast. */
  delayed(): void
  /** So many seconds for which one direction of a tunnel stands still because of its pace. */
  throttled(direction: 'in' | 'out', seconds: number): void
  /** How long the broker took to accept one connection, in seconds. */
  upstreamConnected(seconds: number): void
  /** Where to ask how many bytes wait in memory for all connections together. */
  watchBuffers(read: () => number): void
  /** Where to ask how many bytes of bodies and WebSocket messages are held that are not done with. */
  watchBodies(read: () => number): void
  /** Where to ask how push is. */
  watchPush(read: () => PushFigures): void
  /** Where to ask what has become of mails. */
  watchMails(read: () => MailFigures): void
  /** Where to ask about the embedded broker's retained messages. */
  watchRetained(read: () => RetainedFigures): void
  /** Where to ask for which causes the event loop was busy for long. */
  watchSlices(read: () => ReadonlyMap<SliceCause, SliceFigures>): void
  /** When the served certificate expires (milliseconds since 1970). */
  certificateExpires(time: number): void
  /** Stops what the metrics themselves run. */
  close(): void
}

/** Makes the metrics; every series exists from the start, at zero. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  new Gauge({ name: 'mqway_info', help: 'The running version', labelNames: ['version'], registers: [registry] }).set(
    { version },
    1,
  )

  // Plain numbers until somebody reads them: the library finds a series by sorting and joining its labels each time,
  // which was 2 % of what a new connection costs.
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
    const counts = new Map<ErrorReason, number>(endingReasons.map(reason => [reason, 0]))
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
    help: 'Messages and topic filters that the embedded broker refused, by what the client wanted to do',
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
    watchBuffers: read => {
      new Gauge({
        name: 'mqway_buffered_bytes',
        help: 'Bytes that wait in memory for clients and brokers that are slower than the other side',
        registers: [registry],
        collect() {
          this.set(read())
        },
      })
    },
    watchBodies: read => {
      new Gauge({
        name: 'mqway_body_bytes',
        help: 'Bytes of request bodies and WebSocket messages that are held until they are complete and done with',
        registers: [registry],
        collect() {
          this.set(read())
        },
      })
    },
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
  counter('mqway_mails_sent_total', 'Mails that were taken, one for each recipient', ({ sent }) => sent)
  counter('mqway_mails_failed_total', 'Mails that could not be sent and were given up', ({ failed }) => failed)
  counter('mqway_mail_retries_total', 'Attempts to send a mail that failed and come again', ({ retried }) => retried)
  gauge('mqway_mails_waiting', 'Mails that wait to be sent', ({ waiting }) => waiting)
  const collected = 'Messages and events that rules of mails were about, once for each rule'
  counter('mqway_mail_events_total', collected, figures => figures.collected)
  const dropped = 'Of these, those of which a mail says only how many there were'
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
  counter('mqway_slow_slices_seconds_total', 'How long these were, together', ({ seconds }) => seconds)
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
    'Clients that are being sent the retained messages of their new subscriptions',
    ({ scans }) => scans,
  )
}

function watchPush(registry: Registry, read: () => PushFigures): void {
  const registers = [registry]
  const { gauge, counter } = seriesOf(registry, read)
  gauge('mqway_push_connected', '1 while push has its session with the broker', ({ connected }) => Number(connected))
  gauge(
    'mqway_push_catching_up',
    'Subscribers that have not yet got all that was there',
    ({ catchingUp }) => catchingUp,
  )
  gauge('mqway_push_subscribers', 'Event streams, polls that wait, and sockets', ({ subscribers }) => subscribers)
  gauge(
    'mqway_push_listeners',
    'Devices that listen, MQTT clients of the embedded broker too',
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
  counter('mqway_push_gaps_total', 'Subscribers that were told that events are missing', ({ gaps }) => gaps)
  counter('mqway_push_cut_off_total', 'Subscribers that were cut off, as they read too slowly', ({ cutOff }) => cutOff)
  const presence = 'Messages of who comes and goes'
  counter('mqway_push_presence_messages_total', presence, figures => figures.presencePublished)
  const dropped = 'Messages of who comes and goes that were dropped: the broker was away, or too many waited'
  counter('mqway_push_presence_dropped_total', dropped, figures => figures.presenceDropped)
}

/** Counts that start at zero. */
export function noTraffic(): Traffic {
  return { bytesIn: 0, bytesOut: 0, framesIn: 0, framesOut: 0 }
}
