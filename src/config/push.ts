import { z } from 'zod'
import { filterCovers } from '../topics/match.js'
import { duration, size } from './units.js'
import { file, secret, topicFilter, wholeNumber, wholeNumberOrOff } from './values.js'

/*
 * The options of `push:`: event streams, long-polls and sockets, and the journal.
 */

const maxEvents = wholeNumber(1, 1_000_000_000)
const maxBytes = size({ min: '64KiB' })
const maxAge = duration({ min: '1s' })

/** Topics with journal bounds of their own. */
const boundedTopics = z.strictObject({
  filter: topicFilter.describe('Its topic filter'),
  maxEvents: maxEvents.optional().describe('Stored events of these topics; default: push.maxEvents'),
  maxBytes: maxBytes.optional().describe('Stored bytes of their topics and payloads'),
  maxAge: maxAge.optional().describe('Maximum age of their events'),
})

const topicsEntry = z
  .union([z.string(), boundedTopics], { error: 'must be a topic filter, or have filter and what to keep of it' })
  .superRefine((entry, context) => {
    const { error } = typeof entry === 'string' ? topicFilter.safeParse(entry) : {}
    for (const { message } of error?.issues ?? []) context.addIssue(message)
  })

/** Each has its own share of the journal, which each subscriber is matched with. */
const maxBoundedTopics = 100

const redisUrl = z.string().refine(isRedisUrl, {
  error: 'must be redis://host:port, rediss://host:port for TLS, or unix:/path, without a password',
})

/** `push.journal.redis` */
const redisSection = z
  .strictObject({
    url: redisUrl.describe(
      'Its address: redis://host:6379/0, with the number of the database; rediss:// for TLS; unix:/path?db=0 for a Unix socket',
    ),
    username: z.string().min(1).optional().describe('User name of its ACL; default: that of the URL, or none'),
    passwordFile: file.optional().describe('File with the password'),
    ca: file
      .optional()
      .describe('File with the certificates of the authorities that may sign the certificate of a rediss:// address'),
    prefix: z
      .string()
      .regex(/^[\x21-\x7e]{1,64}$/, { error: 'must be 1 to 64 visible ASCII characters' })
      .default('mqway:')
      .describe('Prefix of its keys; gateways with the same prefix share one journal'),
    sentinel: z
      .strictObject({
        name: z.string().min(1).describe('Name of the primary'),
        addresses: z
          .array(z.string().regex(/^([^\s/@:]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?$/, { error: 'must be host:port' }))
          .min(1)
          .describe('Addresses of the sentinels: host:port, by default 26379'),
      })
      .optional()
      .describe('Redis Sentinel, which knows the address; of url, only the scheme and the database are used then'),
  })
  .describe(
    'Redis 6.2 or later, or Valkey, not as a cluster: the journal that several gateways before one broker share',
  )

export type RedisConfig = z.output<typeof redisSection>

function isRedisUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname, password, pathname, searchParams } = new URL(text)
  if (password !== '') return false
  if (protocol === 'unix:') return pathname.length > 1 && /^\d{0,4}$/.test(searchParams.get('db') ?? '')
  return (protocol === 'redis:' || protocol === 'rediss:') && hostname !== '' && /^(\/\d{0,4})?$/.test(pathname)
}

/** @param origin the type of an entry of `origins` */
export const pushSection = (origin: z.ZodType<string, string>) =>
  z.strictObject({
    topics: z
      .array(topicsEntry)
      .min(1)
      .refine(entries => entries.filter(entry => typeof entry !== 'string').length <= maxBoundedTopics, {
        error: `must have at most ${maxBoundedTopics} entries with bounds of their own`,
      })
      .optional()
      .describe(
        'Topic filters of the pushed messages. Default: # (all topics except $SYS) with the embedded broker, none with another one. An entry with filter, maxEvents, maxBytes and maxAge has its own share of the journal, which events of other topics do not evict',
      ),
    username: z
      .string()
      .optional()
      .describe('User name of push’s own sessions with a broker other than the embedded one'),
    password: secret('password').optional().describe('Its password').meta({ writeOnly: true }),
    clientId: z
      .string()
      .min(1)
      .max(64)
      .optional()
      .describe(
        'Client id of push’s own session with the broker, which clients may not use; default: a random one, stored in data',
      ),
    journal: z
      .union([z.enum(['level', 'memory']), z.strictObject({ redis: redisSection })], {
        error: 'must be level, memory, or a mapping with redis',
      })
      .optional()
      .describe(
        'Storage of events for replay: level (under data), memory, or redis, which several gateways share; default: level, or memory with data: none',
      ),
    maxEvents: maxEvents
      .optional()
      .describe('Stored events; beyond, the oldest are evicted. Default: 1,000,000; in memory and in Redis 100,000'),
    maxBytes: maxBytes
      .optional()
      .describe('Stored bytes of topics and payloads. Default: 1 GiB; in memory and in Redis 128 MiB'),
    maxAge: maxAge.prefault('7d').describe('Maximum age of events'),
    maxSubscriptionsBytes: size({ min: '1MiB' })
      .prefault('128MiB')
      .describe(
        'Bytes of the topic filters of all event streams, polls and sockets, plus 512 for each; one user or address may have half of them, and no more than are left for others',
      ),
    maxRetained: wholeNumber(1, 10_000_000)
      .default(100_000)
      .describe('Topics with a retained message for new subscribers. Beyond: retained messages are not stored'),
    maxRetainedBytes: size({ min: '64KiB' })
      .prefault('256MiB')
      .describe('Bytes of their topics, payloads and properties'),
    maxQueuedEvents: wholeNumber(1, 1_000_000)
      .default(1000)
      .describe('Events queued for a slow subscriber; beyond, it is disconnected with its cursor'),
    maxQueuedBytes: size({ min: '1KiB' }).prefault('1MiB').describe('Their bytes'),
    origins: z
      .array(origin)
      .default(['same-origin'])
      .describe(
        'Origins of pages that may use it: same-origin, https://a.example, *.a.example, /regular expression/, null, or *',
      ),
    jsonp: z
      .boolean()
      .default(false)
      .describe('Respond to long-polls with callback= as JSONP, which any page can read, if the client is anonymous'),
    heartbeat: duration({ min: '1s', max: '1m' })
      .prefault('15s')
      .describe('Idle time before a keepalive with the current position on event streams and sockets'),
    maxReceipts: wholeNumber(1, 100_000_000)
      .default(100_000)
      .describe(
        'Stored delivery receipts, of which the oldest are dropped first; also the maximum number of requested receipts, of which one user or address may have half',
      ),
    receiptMessagesPerSecond: wholeNumberOrOff(1, 100_000)
      .default(100)
      .describe(
        'Messages on receipts/<topic> about receipts that were not requested, per second, on average, with a burst of 20,000. Beyond: the receipt is stored, but not published',
      ),
    presence: z
      .strictObject({
        messages: z.boolean().default(true).describe('Publish presence messages on presence/<topic>'),
        messagesPerSecond: wholeNumberOrOff(1, 100_000)
          .default(100)
          .describe(
            'Presence messages per second, on average, with a burst of 20,000; beyond, they are dropped and counted',
          ),
        grace: duration({ min: '0ms', max: '1h' })
          .prefault('10s')
          .describe('How long a listener stays present between two long-polls or connections'),
      })
      .prefault({})
      .describe('Presence'),
    clients: z
      .strictObject({
        messages: z
          .boolean()
          .default(false)
          .describe(
            'Publish clients/<client id>/connected and …/disconnected for the MQTT clients of all brokers, to whoever may subscribe to these topics',
          ),
        messagesPerSecond: wholeNumberOrOff(1, 100_000)
          .default(100)
          .describe(
            'These messages per second, on average, with a burst of 20,000; beyond, they are dropped and counted',
          ),
      })
      .prefault({})
      .describe('MQTT clients that connect and disconnect'),
  })

type PushSection = z.output<ReturnType<typeof pushSection>>

/** Journal bounds of some topics. */
export interface TopicBoundsRule {
  readonly filters: readonly string[]
  readonly maxEvents: number
  readonly maxBytes: number
  readonly maxAge: number
}

/** `push:` as the program uses it. */
export type PushConfig = Omit<PushSection, 'topics' | 'maxEvents' | 'maxBytes' | 'journal'> & {
  readonly topics: readonly string[]
  /** For topics without a rule. */
  readonly maxEvents: number
  readonly maxBytes: number
  /** Bounds of some topics; the first matching rule applies. */
  readonly rules: readonly TopicBoundsRule[]
  readonly journal: 'level' | 'memory' | 'redis'
  /** With `journal: 'redis'`. */
  readonly redis?: RedisConfig | undefined
}

/** Default bounds of a journal; in memory, it shares the heap. */
const defaultsOf = {
  level: { maxEvents: 1_000_000, maxBytes: 1024 ** 3 },
  memory: { maxEvents: 100_000, maxBytes: 128 * 1024 ** 2 },
  redis: { maxEvents: 100_000, maxBytes: 128 * 1024 ** 2 },
} as const

/**
 * Returns the effective options of push: by default, all topics of the embedded broker, and none of another one. @returns `undefined` for
 * none
 */
export function pushOf({
  push,
  broker,
  data,
}: {
  readonly push: PushSection | 'off'
  readonly broker: unknown
  readonly data: string
}): PushConfig | undefined {
  if (push === 'off') return undefined
  const entries = push.topics ?? (broker === 'embedded' ? ['#'] : undefined)
  if (!entries) return undefined
  const redis = redisOf(push)
  const journal = redis ? 'redis' : (storeOf(push) ?? (data === 'none' ? 'memory' : 'level'))
  const kept = defaultsOf[journal]
  const { maxEvents = kept.maxEvents, maxBytes = kept.maxBytes, maxAge } = push
  const rules = entries.flatMap(entry => {
    if (typeof entry === 'string') return []
    const own = {
      maxEvents: entry.maxEvents ?? maxEvents,
      maxBytes: entry.maxBytes ?? maxBytes,
      maxAge: entry.maxAge ?? maxAge,
    }
    return [{ ...own, filters: [entry.filter] }]
  })
  return { ...push, topics: filtersOf(entries), maxEvents, maxBytes, rules, journal, redis }
}

/** The entries of `push.topics` with bounds of their own. */
export function filtersWithBounds(push: PushSection | 'off'): readonly unknown[] {
  return push === 'off' ? [] : (push.topics ?? []).filter(entry => typeof entry !== 'string')
}

function storeOf({ journal }: Pick<PushSection, 'journal'>): 'level' | 'memory' | undefined {
  return typeof journal === 'string' ? journal : undefined
}

/** `push.journal.redis`; `undefined` without it. */
export function redisOf({ journal }: Pick<PushSection, 'journal'>): RedisConfig | undefined {
  return typeof journal === 'object' ? journal.redis : undefined
}

type TopicsEntry = string | z.output<typeof boundedTopics>

/** The filters to subscribe to. One with bounds is omitted if another filter covers it: its messages would arrive twice. */
function filtersOf(entries: readonly TopicsEntry[]): string[] {
  const filters = entries.map(entry => (typeof entry === 'string' ? entry : entry.filter))
  return filters.filter((filter, index) => {
    if (typeof entries[index] === 'string') return true
    return !filters.some((other, at) => filterCovers(other, filter) && (other !== filter || at < index))
  })
}
