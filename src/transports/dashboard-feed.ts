import { isUtf8 } from 'node:buffer'
import { z } from 'zod'
import type { RequireAdmin } from '../access/administrators.js'
import { accountOf } from '../access/limits.js'
import type { Permissions } from '../access/topic-rules.js'
import { type ErrorReason, GatewayError } from '../base/errors.js'
import { FairQuota } from '../base/fair-quota.js'
import type { Identity } from '../base/identity.js'
import type { Logger } from '../base/log.js'
import { type Metrics, type MetricValues, seriesOf } from '../base/metrics.js'
import { oneLineJson } from '../base/one-line-json.js'
import type { ApiGate, Caller } from '../http/api-gate.js'
import type { ActiveTopic, TopicActivity } from '../hub/topic-activity.js'
import type { LiveConnection, LiveConnections } from './live-connections.js'
import { controlEvents } from './sse/sse-encoding.js'
import type { StreamWriter } from './stream-writer.js'

/** Milliseconds between two snapshots. */
export const snapshotInterval = 2000

/** Milliseconds between two checks of the brokers. */
const healthInterval = 10_000

/** Open streams in all; one user or network may have half of them. */
const maxViewers = 32

/** Topics of one event, and UTF-16 units of their names. */
const [maxTopics, maxNames] = [200, 2 ** 16]

/** Snapshots that a viewer may miss in a row before its stream ends: half a minute. */
const maxMissed = 15

/** Milliseconds that a client has to read its last bytes. */
const lingerTime = 2000

const wholeCount = z.int().min(0)
const time = z.iso.datetime()

/** The event `snapshot`. */
export const snapshotSchema = z.object({
  time,
  health: z
    .object({
      ready: z.boolean().describe('Whether /readyz is 200'),
      detail: z.string().optional().describe('Why it is not'),
      brokers: z.array(
        z.object({
          broker: z.string(),
          roundTripMs: z.number().optional().describe('Milliseconds of an MQTT round-trip'),
          detail: z.string().optional().describe('Why it is not ready'),
        }),
      ),
    })
    .describe('At most some 10 s old'),
  metrics: z
    .record(z.string(), z.number())
    .optional()
    .describe(
      'The series of /metrics by name, without zeros and histogram buckets; left out if a worker does not answer',
    ),
})

/** The event `topics`. */
export const topicsSchema = z.array(
  z.object({
    topic: z.string(),
    messages: wholeCount.describe('Since somebody has been watching'),
    bytes: wholeCount.describe('Of their payloads'),
    rate: z.number().describe('Messages per second, an exponentially weighted mean'),
    time: time.describe('Time of the last message'),
    size: wholeCount.describe('Bytes of its payload'),
    payload: z.string().optional().describe('At most its first 256 bytes, if the rules let the caller read the topic'),
    payloadBase64: z.string().optional().describe('The same, if it is not UTF-8'),
  }),
)

/** Whether the gateway can serve; see `/readyz`. */
interface Health {
  readonly isReady: boolean
  readonly detail: string | undefined
  readonly brokers: readonly { readonly broker: string; readonly roundTripMs?: number; readonly detail?: string }[]
}

export interface DashboardFeedOptions {
  readonly gate: ApiGate
  readonly requireAdmin: RequireAdmin
  readonly connections: LiveConnections
  /** The metrics of all workers. Rejects if they are not there in time. */
  readonly readMetrics: () => Promise<MetricValues>
  /** Never rejects, and takes 3 s at most. */
  readonly checkHealth: () => Promise<Health>
  /** `undefined` without push. */
  readonly topics: TopicActivity | undefined
  /** Milliseconds between two snapshots. Default: 2000 */
  readonly interval?: number
  readonly metrics: Pick<Metrics, 'ended'>
  readonly log: Logger
}

/**
 * Sends a snapshot of the gateway to all viewers every 2 s. It is made once for all of them, and only while there are any; a viewer that has not read the
 * last one misses the next.
 */
export class DashboardFeed {
  readonly #options: DashboardFeedOptions
  readonly #viewers = new Set<Viewer>()
  readonly #quota = new FairQuota(maxViewers)
  #health: Health | undefined
  #healthAt = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #isRunning = false
  #unwatch: (() => void) | undefined

  constructor(options: DashboardFeedOptions) {
    this.#options = options
  }

  /**
   * Counts a viewer, before its response begins.
   *
   * @returns releases it; idempotent
   * @throws {GatewayError} `too-many-connections`, `too-many-from-user`, `too-many-from-address`
   */
  hold(caller: Caller): () => void {
    const { client, identity } = caller
    const account = accountOf(identity.user, client.address)
    const exceeded = this.#quota.exceededBy(account, 1)
    if (exceeded !== undefined) throw new GatewayError(exceededReason(exceeded, identity), { hint: 'open dashboards' })
    const release = this.#options.gate.hold(caller)
    this.#quota.take(account, 1)
    let isHeld = true
    return () => {
      if (!isHeld) return
      isHeld = false
      this.#quota.giveBack(account, 1)
      release()
    }
  }

  /**
   * Adds a viewer.
   *
   * @param release called when it has ended
   * @throws {GatewayError} `shutting-down`
   */
  add(caller: Caller, { body, peer }: Pick<StreamWriter, 'body' | 'peer'>, release: () => void): void {
    const { log, metrics, connections } = this.#options
    const fields = { peer: caller.client.address, user: caller.identity.user }
    const viewer = new Viewer(caller, body, connections, error => {
      this.#viewers.delete(viewer)
      release()
      metrics.ended(error.reason)
      log[error.level]({ ...fields, ...error.logFields }, error.detailedText)
      if (this.#viewers.size === 0) this.#pause()
    })
    this.#viewers.add(viewer)
    peer.on('close', () => viewer.close(new GatewayError('client-closed')))
    log.info(fields, 'dashboard connected')
    this.#unwatch ??= this.#options.topics?.watch()
    // The first snapshot at once: a page is empty until then.
    if (!this.#isRunning) this.#schedule(0)
  }

  #pause(): void {
    clearTimeout(this.#timer)
    this.#unwatch?.()
    this.#unwatch = undefined
  }

  #schedule(delay: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#send(), delay).unref()
  }

  async #send(): Promise<void> {
    this.#isRunning = true
    try {
      const snapshot = await this.#snapshot()
      this.#options.topics?.rate()
      const topicsOf = new Map<Permissions, Buffer>()
      for (const viewer of [...this.#viewers]) {
        if (!this.#isReady(viewer)) continue
        viewer.write(snapshot)
        const permissions = this.#options.gate.permissionsOf(viewer.identity)
        let topics = topicsOf.get(permissions)
        if (!topics) {
          topics = this.#encodeTopics(permissions)
          topicsOf.set(permissions, topics)
          await nextTick()
        }
        viewer.write(topics)
      }
    } catch (error) {
      this.#options.log.error({ err: error }, 'failed to make a snapshot for the dashboard')
    } finally {
      this.#isRunning = false
      if (this.#viewers.size > 0) this.#schedule(this.#options.interval ?? snapshotInterval)
    }
  }

  /** Ends viewers that may not see the dashboard any more, or read too slowly. */
  #isReady(viewer: Viewer): boolean {
    try {
      this.#options.requireAdmin(viewer.client, viewer.identity)
    } catch (error) {
      viewer.end(GatewayError.from(error))
      return false
    }
    if (!viewer.isBehind) return true
    if (viewer.missed > maxMissed) viewer.end(new GatewayError('client-too-slow'))
    return false
  }

  async #snapshot(): Promise<Buffer> {
    const { readMetrics, log } = this.#options
    const [metrics, health] = await Promise.all([
      readMetrics().catch(error => void log.warn({ err: error }, 'the metrics for the dashboard are incomplete')),
      this.#currentHealth(),
    ])
    return encode('snapshot', {
      time: new Date().toISOString(),
      health: {
        ready: health.isReady,
        ...(health.detail !== undefined && { detail: health.detail }),
        brokers: health.brokers.map(broker => ({ ...broker })),
      },
      ...(metrics && { metrics: seriesOf(metrics) }),
    } satisfies z.output<typeof snapshotSchema>)
  }

  /** Brokers are probed seldom: each probe is a connection, and a line in the broker's log. */
  async #currentHealth(): Promise<Health> {
    const now = performance.now()
    if (!this.#health || now - this.#healthAt >= healthInterval) {
      this.#healthAt = now
      this.#health = await this.#options.checkHealth()
    }
    return this.#health
  }

  #encodeTopics({ mayRead }: Permissions): Buffer {
    const list: z.output<typeof topicsSchema> = []
    let size = 0
    for (const active of this.#options.topics?.busiest(maxTopics) ?? []) {
      size += active.topic.length
      if (size > maxNames && list.length > 0) break
      list.push(describe(active, mayRead(active.topic)))
    }
    return encode('topics', list)
  }
}

function exceededReason(exceeded: 'own' | 'all', { user }: Identity): ErrorReason {
  if (exceeded === 'all') return 'too-many-connections'
  return user === undefined ? 'too-many-from-address' : 'too-many-from-user'
}

function nextTick(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

function encode(event: string, data: object): Buffer {
  return Buffer.from(`event: ${event}\ndata: ${oneLineJson(data)}\n\n`)
}

function describe(active: ActiveTopic, mayRead: boolean): z.output<typeof topicsSchema>[number] {
  const { topic, messages, bytes, rate, size } = active
  const last = new Date(active.time).toISOString()
  const counts = { topic, messages, bytes, rate: Math.round(rate * 100) / 100, time: last, size }
  return mayRead ? { ...counts, ...previewOf(active) } : counts
}

function previewOf({ preview, size }: ActiveTopic): { payload: string } | { payloadBase64: string } {
  // The last character may be cut off; it has at most four bytes.
  const cuts = preview.length < size ? [0, 1, 2, 3] : [0]
  for (const cut of cuts) {
    const whole = preview.subarray(0, preview.length - cut)
    if (isUtf8(whole)) return { payload: Buffer.from(whole).toString() }
  }
  return { payloadBase64: Buffer.from(preview).toString('base64') }
}

/** The stream of one dashboard. It ends when the client leaves, its identity expires, or the gateway ends it. */
class Viewer {
  /** Snapshots that it has missed in a row. */
  missed = 0
  readonly client: Caller['client']
  readonly #body: StreamWriter['body']
  readonly #connection: LiveConnection
  readonly #onEnd: (error: GatewayError) => void
  #isClosed = false

  /** @throws {GatewayError} `shutting-down` */
  constructor(
    caller: Caller,
    body: StreamWriter['body'],
    connections: LiveConnections,
    onEnd: (error: GatewayError) => void,
  ) {
    this.client = caller.client
    this.#body = body
    this.#onEnd = onEnd
    const events = { end: (error: GatewayError) => this.end(error), renewed: () => {} }
    this.#connection = connections.open(caller.identity, events)
  }

  get identity(): Identity {
    return this.#connection.identity
  }

  /** Whether it has not read the last snapshot; counts the one that it misses. */
  get isBehind(): boolean {
    const isBehind = this.#body.writableNeedDrain
    this.missed = isBehind ? this.missed + 1 : 0
    return isBehind
  }

  write(data: Buffer): void {
    if (!this.#isClosed) this.#body.write(data)
  }

  /** Sends the reason, and ends the response. */
  end(error: GatewayError): void {
    if (!this.close(error)) return
    const body = this.#body.end(controlEvents.end(error))
    const timer = setTimeout(() => body.destroy(), lingerTime).unref()
    body.once('close', () => clearTimeout(timer))
  }

  /** Releases everything but the response; `false` if that has been done. */
  close(error: GatewayError): boolean {
    if (this.#isClosed) return false
    this.#isClosed = true
    this.#connection.close()
    this.#onEnd(error)
    return true
  }
}
