import { z } from 'zod'
import { access } from './access.js'
import { compat } from './compat.js'
import {
  isAddressRange,
  isDeniedPath,
  isHostName,
  isHostPattern,
  isOriginPattern,
  parseBrokerUrl,
  regexProblem,
} from './forms.js'
import { notify } from './notify.js'
import { pushSection } from './push.js'
import { duration, fileMode, size } from './units.js'
import { file, secret, wholeNumber, wholeNumberOrOff } from './values.js'

/*
 * The one table of all options: name, type, unit, default and description. Types, errors, `docs/configuration.md` and
 * `mqway.schema.json` come from here.
 */

const hostName = z.string().min(1)
const host = z.union([hostName, z.array(hostName).min(1)], { error: 'must be an address, a name, or a list of them' })

// A rule inside a union is abort: true where the union's own message is to be shown and not the rule's.
const port = z.union(
  [z.literal('off'), z.int().min(0).max(65535), z.string().regex(/^unix:.+/, { error: '', abort: true })],
  { error: 'must be a port from 0 (any free one) to 65535, unix:/path/to/socket, or off' },
)

const webPort = z.union([port, z.array(port).min(1)], {
  error: 'must be a port from 0 (any free one) to 65535, unix:/path/to/socket, off, or a list of ports',
})

const portDescription = 'A port, 0 for any free one, unix:/path for a Unix socket, or off'
const webPortDescription = `${portDescription}; or a list of ports`
const unixSocketMode = fileMode().prefault('0660').describe('Mode of the Unix socket; clients need write permission')
const listenerHost = host.optional().describe('Address of this listener; default: the top-level host')

const urlForms = 'mqtt://host:port, mqtts://host:port or unix:/path/to/socket, without a user name or a password in it'

const upstreamUrl = z
  .string()
  .refine(url => parseBrokerUrl(url) !== undefined, { error: `must be ${urlForms}`, abort: true })

const upstream = z.strictObject({
  url: z
    .union([upstreamUrl, z.array(upstreamUrl).min(1)], {
      error: `must be ${urlForms}; or a list of them`,
    })
    .describe('mqtt://host:port, mqtts://host:port or unix:/path; a list of them for failover'),
  balance: z
    .enum(['failover', 'round-robin', 'least-connections'])
    .default('failover')
    .describe('Which address a connection tries first; the others follow if it does not respond'),
  connectTimeout: duration({ max: '5m' })
    .prefault('5s')
    .describe('Timeout of opening a connection, over all addresses'),
  ca: file.optional().describe('mqtts: file with the CA certificates that may sign the broker’s certificate (PEM)'),
  cert: file.optional().describe('mqtts: file with the client certificate (PEM)'),
  key: file.optional().describe('mqtts: file with its private key (PEM)'),
  servername: z.string().optional().describe('mqtts: server name to send (SNI) and to verify, if it is not the host'),
  proxyProtocol: z
    .enum(['off', 'v1', 'v2'])
    .default('off')
    .describe('Tell the broker the client’s address with a PROXY protocol header; the broker must expect it'),
  username: z.string().optional().describe('User name of the readiness probe; clients have their own'),
  password: secret('password').optional().describe('Password of the readiness probe').meta({ writeOnly: true }),
})

const broker = z.union([z.literal('embedded'), upstreamUrl, upstream], {
  error: `must be embedded, ${urlForms}; or a mapping with url`,
})

const subprotocol = z
  .string()
  .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, { error: 'must be a token, such as mqtt (RFC 6455 §4.1)' })

const origin = z.string().refine(isOriginPattern, {
  error:
    'must be same-origin, https://a.example[:port], https://*.a.example, *.a.example, a.example, /regex/, null or *',
})

const addressRange = z.string().refine(isAddressRange, {
  error: 'must be an address, a CIDR range such as 10.0.0.0/8, or one of loopback, linklocal and uniquelocal',
})

const hostEntry = z
  .string()
  .refine(isHostName, { error: 'must be a host name without a port: a.example or *.a.example, or * for every one' })
const hostPattern = z
  .string()
  .refine(isHostPattern, { error: 'must be a.example, *.a.example or /regular expression/' })

const namedCertificate = z.strictObject({
  hosts: z.array(hostPattern).min(1).describe('a.example, *.a.example or /regular expression/'),
  cert: file.describe('Certificate chain (PEM)'),
  key: file.describe('Its private key (PEM); may be the same file as cert'),
  chain: file.optional().describe('Certificates of intermediate CAs, if cert has none (PEM)'),
})

const deniedPath = z
  .string()
  .min(1)
  .refine(isDeniedPath, { error: 'must be the end of a path, or /regular expression/' })

const pathPattern = z
  .string()
  .min(1)
  .superRefine((source, context) => {
    const problem = regexProblem(source)
    if (problem !== undefined) context.addIssue(`must be a regular expression: ${problem}`)
  })

const tunnel = z
  .strictObject({
    path: z
      .string()
      .startsWith('/', { error: 'must begin with /' })
      .optional()
      .describe('Exact path; a trailing slash makes no difference'),
    pathPrefix: z
      .string()
      .startsWith('/', { error: 'must begin with /' })
      .optional()
      .describe('Prefix of paths, as in lighttpd'),
    pathSuffix: z.string().min(1).optional().describe('Suffix of paths'),
    pathPattern: pathPattern.optional().describe('JavaScript regular expression for paths'),
    hosts: z
      .array(hostPattern)
      .min(1)
      .optional()
      .describe(
        'Host names of the tunnel: a.example, *.a.example or /regular expression/ (with a colon in it: for the host with its port, except 80 and 443); default: any',
      ),
    ports: z
      .array(
        z.union([z.int().min(1).max(65535), z.string().regex(/^unix:.+/)], { error: 'must be a port or unix:/path' }),
      )
      .min(1)
      .optional()
      .describe('Ports of the tunnel, of those of the listeners; default: all'),
    allow: z.array(addressRange).min(1).optional().describe('Addresses or CIDR ranges that may connect; others: 403'),
    broker: broker.optional().describe('Broker of this tunnel; default: the top-level broker'),
    subprotocols: z
      .array(subprotocol)
      .min(1)
      .default(['mqtt', 'mqttv3.1'])
      .describe('Accepted subprotocols; the first one that the client offers is selected'),
    requireSubprotocol: z.boolean().default(false).describe('Refuse clients without subprotocol'),
    forceSubprotocol: subprotocol
      .optional()
      .describe('Respond with this subprotocol even if it was not offered, as mod_websocket’s subproto'),
    origins: z
      .array(origin)
      .default(['same-origin'])
      .describe(
        'Pages that may connect: same-origin, https://a.example, *.a.example, /regular expression/, null, or *',
      ),
    requireOrigin: z.boolean().default(false).describe('Refuse clients without Origin, that is, programs'),
    requireIdentity: z
      .boolean()
      .default(false)
      .describe(
        'Refuse upgrades without a token, a ticket, Basic or a certificate, so that only authenticated clients reach the broker',
      ),
    inspectConnect: z
      .boolean()
      .default(true)
      .describe('Require an MQTT CONNECT first, log its client id and user, and refuse the gateway’s own client ids'),
    pingInterval: z
      .union([z.literal('off'), duration({ min: '1s' })], {
        error: 'must be off, or a time such as 30s, from 1s to 24d',
      })
      .prefault('30s')
      .describe('Idle time before a ping; two unanswered pings close the connection'),
  })
  .superRefine((value, context) => {
    const given = (['path', 'pathPrefix', 'pathSuffix', 'pathPattern'] as const).filter(key => value[key] !== undefined)
    if (given.length !== 1) {
      context.addIssue({ code: 'custom', message: 'needs exactly one of path, pathPrefix, pathSuffix and pathPattern' })
    }
  })

/** Every option of mqway. The input is what a person writes; the output has defaults filled in and units resolved. */
export const configSchema = z.strictObject({
  host: host.default('127.0.0.1').describe('Address to listen on, a name, or a list of them'),
  anonymous: z.boolean().default(false).describe('Allow clients without credentials, also from other machines'),
  access: access.optional().describe('Authentication and authorization; default: everybody may do everything'),
  broker: broker
    .prefault('embedded')
    .describe('The broker: embedded, mqtt://host:port, mqtts://host:port or unix:/path'),
  http: z
    .strictObject({
      port: webPort.default(8080).describe(webPortDescription),
      host: listenerHost,
      unixSocketMode,
      redirect: z.boolean().default(false).describe('Redirect every request to https, at the same host'),
    })
    .prefault({})
    .describe('The plain web server'),
  https: z
    .strictObject({
      port: webPort.default(8443).describe(webPortDescription),
      host: listenerHost,
      unixSocketMode,
      cert: file.optional().describe('Certificate chain (PEM); a development certificate is made when left out'),
      key: file.optional().describe('Its private key (PEM); may be the same file as cert'),
      chain: file
        .optional()
        .describe('Certificates of CAs between cert and a browser’s own, where cert has it alone (PEM)'),
      certificates: z
        .array(namedCertificate)
        .default([])
        .describe(
          'Certificates for clients that ask for certain names (SNI): hosts as those of a tunnel, cert, key and chain; of two that have the name the first one',
        ),
      minVersion: z.enum(['TLSv1.2', 'TLSv1.3']).default('TLSv1.2').describe('The oldest TLS version to speak'),
    })
    .prefault({})
    .describe('The TLS web server: HTTP/2 and HTTP/1.1'),
  mqtt: z
    .strictObject({
      port: port.optional().describe('Plain MQTT port; default: 1883, or off if the broker listens at that address'),
      host: listenerHost,
      unixSocketMode,
    })
    .prefault({})
    .describe('The plain MQTT port'),
  embedded: z
    .strictObject({
      maxPacketSize: size({ min: '1KiB', max: '256MiB' })
        .prefault('16MiB')
        .describe('Largest MQTT packet that the embedded broker accepts'),
      maxQueuedBytes: size({ min: '64KiB' })
        .prefault('1MiB')
        .describe(
          'What may wait for a client of the embedded broker before those who publish to it wait, as long as it takes bytes; 16 times as much, or two of the largest packets, at most: then, or when the client is slow, QoS 0 is dropped, and QoS 1 and 2 end its connection',
        ),
      maxBufferedBytes: size({ min: '1MiB' })
        .prefault('256MiB')
        .describe(
          'Bytes of incomplete packets, and bytes buffered for slow clients, of all clients of the embedded broker; one address has at most half of each; beyond, connections are closed',
        ),
      maxSubscriptions: wholeNumber(1, 1_000_000)
        .default(1000)
        .describe('Topic filters that one client of the embedded broker may have; beyond: 0x80 in SUBACK'),
      maxSubscriptionBytes: size({ min: '1KiB' })
        .prefault('256KiB')
        .describe('Bytes of all topic filters of one client of the embedded broker; beyond: 0x80 in SUBACK'),
      maxSubscriptionsBytes: size({ min: '1MiB' })
        .prefault('128MiB')
        .describe(
          'Bytes of the topic filters of all clients of the embedded broker, with 512 for each; no user or address gets more than half of what is left for others; beyond: 0x80 in SUBACK',
        ),
      maxQueuedMessages: wholeNumber(1, 1_000_000)
        .default(1000)
        .describe('Messages that the embedded broker queues for a disconnected client; beyond, new ones are dropped'),
      sessionExpiry: z
        .union([z.literal('off'), duration({ min: '1m' })], {
          error: 'must be off, or a time such as 7d, from 1m to 24d',
        })
        .prefault('7d')
        .describe('How long the embedded broker keeps a session without its client'),
      maxSessions: wholeNumber(1, 1_000_000)
        .default(10_000)
        .describe(
          'Sessions that the embedded broker keeps without their client; beyond, the longest absent of the user or address with most ends',
        ),
      maxSessionsPerUser: wholeNumber(1, 1_000_000)
        .default(100)
        .describe('Sessions of one user that the embedded broker keeps; beyond, the longest absent of that user ends'),
      maxAnonymousSessions: wholeNumber(0, 1_000_000)
        .default(0)
        .describe(
          'Sessions that the embedded broker keeps for clients without a name of one network address; 0: their sessions end with their connections',
        ),
      maxSessionBytes: size({ min: '1KiB' })
        .prefault('16MiB')
        .describe('Bytes of queued messages in one session of the embedded broker; beyond, new ones are dropped'),
      maxSessionsBytes: size({ min: '1MiB' })
        .prefault('256MiB')
        .describe(
          'Bytes of all sessions of the embedded broker, in memory or on disk; no user or address gets more than half of what is left for others',
        ),
      maxRetainedMessages: wholeNumber(1, 10_000_000)
        .default(100_000)
        .describe(
          'Topics with a retained message in the embedded broker, half of them of one user or address at most; those of further topics are delivered and not stored',
        ),
      maxRetainedBytes: size({ min: '64KiB' })
        .optional()
        .describe(
          'Bytes of their topics and payloads, half of them of one user or address at most. 256 MiB when left out; 128 MiB with data: none, where they are in memory',
        ),
    })
    .prefault({})
    .describe('The limits of the built-in broker'),
  tunnels: z
    .array(tunnel)
    .prefault([{ path: '/mqtt' }])
    .describe('WebSocket endpoints; the first that matches is used'),
  public: file.optional().describe('Directory to serve instead of the built-in pages; off for no pages at all'),
  index: z
    .array(z.string().regex(/^[^/]+$/, { error: 'must be a file name' }))
    .min(1)
    .default(['index.html'])
    .describe('Index files of directories; the first that exists is served'),
  deny: z
    .array(deniedPath)
    .default([])
    .describe(
      'Paths of pages and tunnels that are refused (403): ends of paths such as ~ or .inc, or /regular expression/',
    ),
  data: file
    .default('./data')
    .describe('Directory for sessions, retained messages and the journal; none for memory only'),
  push: z
    .union([z.literal('off'), pushSection(origin)], { error: 'must be off, or a mapping' })
    .prefault({})
    .describe('Event streams, long-polls and sockets on the same topics, with replay, presence and receipts; or off'),
  compat: compat.prefault({}).describe('HTTP interfaces of other systems, for their unchanged clients; needs push'),
  notify: notify.optional().describe('Mails about messages, and about the broker; needs push'),
  hosts: z
    .array(hostEntry)
    .optional()
    .describe(
      'Host names that are served, such as a.example and *.a.example, or * for every one, besides localhost and loopback addresses; beyond: 421. Any when left out, or none where the web servers listen on loopback only',
    ),
  trustedProxies: z
    .array(addressRange)
    .default([])
    .describe(
      'Addresses or CIDR ranges whose X-Forwarded-For, -Proto and -Host are believed; loopback, linklocal and uniquelocal are names for ranges',
    ),
  limits: z
    .strictObject({
      allow: z
        .array(addressRange)
        .min(1)
        .optional()
        .describe('Addresses or CIDR ranges that may connect; others: 403; default: all'),
      connections: wholeNumber(1, 1_000_000)
        .default(10_000)
        .describe('Open tunnels and MQTT connections in all; beyond: 503'),
      connectionsPerAddress: wholeNumber(1, 1_000_000).default(1000).describe('The same from one address; beyond: 429'),
      headerSize: size({ min: '1KiB', max: '1MiB' })
        .prefault('16KiB')
        .describe('All headers of a request; beyond: 431'),
      handshakeTimeout: duration({ max: '5m' })
        .prefault('10s')
        .describe('For TLS and for the request’s headers; beyond: 408'),
      connectTimeout: duration({ max: '5m' }).prefault('10s').describe('From the upgrade to a complete MQTT CONNECT'),
      connectSize: size({ min: '256B', max: '1MiB' }).prefault('64KiB').describe('The largest MQTT CONNECT packet'),
      closeTimeout: duration({ max: '5m' }).prefault('5s').describe('From one side’s end to the other’s'),
      connectionsPerUser: wholeNumberOrOff(1, 1_000_000)
        .default(1000)
        .describe('Open tunnels and MQTT connections of one user; beyond: 429'),
      upgradesPerSecond: wholeNumberOrOff(1, 100_000)
        .default(100)
        .describe('New tunnels and MQTT connections from one address, on average; beyond: 429'),
      upgradesBurst: wholeNumber(1, 1_000_000).default(1000).describe('Burst of this rate'),
      publishesPerSecond: wholeNumberOrOff(1, 1_000_000)
        .default('off')
        .describe(
          'Messages that one connection publishes through mqway itself, on average; beyond: read more slowly, and 429 over HTTP',
        ),
      publishesBurst: wholeNumber(1, 1_000_000).default(100).describe('Burst of this rate'),
      anonymousPublishesPerSecond: wholeNumberOrOff(1, 1_000_000)
        .default(100)
        .describe(
          'Messages that clients without a user name publish through mqway itself from one address, on average, where others than this machine may connect (access, or anonymous: true); beyond: read more slowly, and 429 over HTTP and sockets',
        ),
      anonymousPublishesBurst: wholeNumber(1, 1_000_000).default(1000).describe('Burst of this rate'),
      anonymousPublishBytesPerSecond: z
        .union([z.literal('off'), size({ min: '1KiB' })], {
          error: 'must be off, or a size with its unit, such as 256KiB or 1MiB, from 1KiB to 1024GiB',
        })
        .prefault('1MiB')
        .describe('Bytes of these messages, on average; those of 16 seconds may come at once'),
      bytesPerSecond: z
        .union([z.literal('off'), size({ min: '1KiB' })], {
          error: 'must be off, or a size with its unit, such as 256KiB or 1MiB, from 1KiB to 1024GiB',
        })
        .prefault('off')
        .describe('Bytes per second of one connection, each way; beyond: more slowly'),
      requestsPerSecond: wholeNumberOrOff(1, 1_000_000)
        .default(1000)
        .describe('Requests to /v1/ from one address, on average; beyond: 429'),
      requestsBurst: wholeNumber(1, 10_000_000).default(5000).describe('Burst of this rate'),
      bodySize: size({ min: '1KiB', max: '256MiB' }).prefault('1MiB').describe('The body of one request; beyond: 413'),
      bodyTimeout: duration({ min: '1s', max: '1h' })
        .prefault('30s')
        .describe('Timeout of that body, or of a message of a plain WebSocket; beyond: 408, or 1008'),
      jsonValues: wholeNumber(100, 10_000_000)
        .default(50_000)
        .describe(
          'Members and elements (commas, colons and opening brackets) of one JSON document that a client sends; beyond: 400',
        ),
      urlLength: size({ min: '256B', max: '64KiB' })
        .prefault('8KiB')
        .describe('The URL of one request with its query; beyond: 414'),
      topicLevels: wholeNumber(1, 100).default(32).describe('Levels of a topic or a filter in the embedded broker'),
      topicLength: size({ min: '16B', max: '64KiB' })
        .prefault('1KiB')
        .describe('The length of a topic or a filter in the embedded broker'),
    })
    .prefault({})
    .describe('Bounds on what others can make the gateway do'),
  metrics: z
    .strictObject({
      allow: z
        .array(addressRange)
        .default(['loopback'])
        .describe(
          'Addresses or CIDR ranges that may read /metrics, and the addresses of brokers at /readyz and in refusals (502, 503, 504)',
        ),
    })
    .prefault({})
    .describe('/metrics, for Prometheus'),
  log: z
    .strictObject({
      level: z
        .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
        .default('info')
        .describe('Minimum level'),
      format: z
        .enum(['auto', 'pretty', 'json'])
        .default('auto')
        .describe('pretty, json, or auto: pretty on a terminal, json elsewhere'),
    })
    .prefault({})
    .describe('The log, on standard output'),
  shutdown: z
    .strictObject({
      grace: duration({ max: '1h' }).prefault('10s').describe('From SIGTERM to the exit, whatever is still open'),
    })
    .prefault({})
    .describe('Stopping'),
})

/** The output of the schema, before the checks of options together. */
export type ParsedConfig = z.output<typeof configSchema>
/** The configuration as the program uses it: complete, in milliseconds and bytes, frozen. */
export type Config = ParsedConfig & {
  readonly mqtt: { readonly port: Exclude<ParsedConfig['mqtt']['port'], undefined> }
}
/** The configuration as a person writes it. */
export type ConfigInput = z.input<typeof configSchema>
export type TunnelConfig = Config['tunnels'][number]
export type BrokerConfig = Config['broker']
export type UpstreamConfig = z.output<typeof upstream>
export type LimitsConfig = Config['limits']

/** The broker at a URL that was given alone: every other option has its default. */
export function upstreamAt(url: string): UpstreamConfig {
  return upstream.parse({ url })
}

/** Default of `embedded.maxRetainedBytes`, in bytes: on disk, and in memory, where retained messages share the heap. */
const maxRetainedBytes = { disk: 256 * 1024 ** 2, memory: 128 * 1024 ** 2 }

/** Bytes of retained messages that the embedded broker keeps: `embedded.maxRetainedBytes`, or its default. */
export function retainedBytesOf({ embedded, data }: Pick<Config, 'embedded' | 'data'>): number {
  return embedded.maxRetainedBytes ?? (data === 'none' ? maxRetainedBytes.memory : maxRetainedBytes.disk)
}
