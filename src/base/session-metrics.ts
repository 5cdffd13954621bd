import { Counter, type Registry } from 'prom-client'
import { seriesOf } from './metric-series.js'

const endReasons = ['user-limit', 'anonymous-limit', 'total-limit', 'expired'] as const
const bounds = ['maxQueuedMessages', 'maxSessionBytes', 'maxSessionsBytes'] as const

/** Why the embedded broker ended a session: the limit that a new one exceeded, or its expiry. */
export type SessionEndReason = (typeof endReasons)[number]

/** The option that limits the queue of a session. */
export type SessionBound = (typeof bounds)[number]

/** The sessions of the embedded broker, and the bytes that they take. */
export interface SessionFigures {
  readonly sessions: number
  readonly bytes: number
}

/** The metrics of the embedded broker's sessions. */
export interface SessionMetrics {
  /** Counts a session that ended. */
  ended(reason: SessionEndReason): void
  /** Counts a message that was not queued for a session. */
  dropped(bound: SessionBound): void
  /** Sets the source of the figures. Called once. */
  watch(read: () => SessionFigures): void
}

/** Creates the metrics of sessions; every series of a counter exists from the start, at zero. */
export function sessionMetrics(registry: Registry): SessionMetrics {
  const registers = [registry]
  const ended = new Counter({
    name: 'mqway_sessions_ended_total',
    help: 'Sessions that the embedded broker ended: at a bound of their number, or because their client stayed away',
    labelNames: ['reason'],
    registers,
  })
  for (const reason of endReasons) ended.inc({ reason }, 0)
  const dropped = countersBy(registry)
  return {
    ended: reason => ended.inc({ reason }),
    dropped,
    watch: read => {
      const { gauge } = seriesOf(registry, read)
      gauge('mqway_sessions', 'Persistent sessions of the embedded broker', figures => figures.sessions)
      gauge('mqway_session_bytes', 'Bytes of queued messages and filters of these sessions', figures => figures.bytes)
    },
  }
}

/** Plain numbers between scrapes: a message may be dropped for thousands of sessions at once. */
function countersBy(registry: Registry): (bound: SessionBound) => void {
  const counts: Record<SessionBound, number> = { maxQueuedMessages: 0, maxSessionBytes: 0, maxSessionsBytes: 0 }
  new Counter({
    name: 'mqway_session_messages_dropped_total',
    help: 'Messages that the embedded broker did not queue for a session, by the option that bounds them',
    labelNames: ['option'],
    registers: [registry],
    collect() {
      this.reset()
      for (const bound of bounds) this.inc({ option: `mqtt.${bound}` }, counts[bound])
    },
  })
  return bound => {
    counts[bound]++
  }
}
