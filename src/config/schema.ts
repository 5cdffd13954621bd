import { z } from 'zod'
import { access } from './access.js'
import { acme } from './acme.js'
import { compat } from './compat.js'
import { isAddressRange, isDeniedPath, isHostName, isOriginPattern, parseBrokerUrl } from './forms.js'
import { notify } from './notify.js'
import { givenPaths, hostPattern, pathConditions } from './path-conditions.js'
import { pushSection } from './push.js'
import { duration, fileMode, size } from './units.js'
import { file, secret, wholeNumber, wholeNumberOrOff } from './values.js'
import { accessLog, compression, headers } from './web.js'

/*
 * The one table of all options: name, type, unit, default and description. Types, errors, `docs/configuration.md` and
 * `mqway.schema.json` come from here.
 */

/** Worker processes; the positions of `ConnectedClients` allow for as many. */
export const maxWorkers = 128

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
const unixSocketMode = fileMode().prefault('0660').describe('File mode of a Unix socket; clients need write permission')
const proxyProtocol = z
  .boolean()
  .default(false)
  .describe('Every connection begins with a PROXY protocol header (version 1 or 2) of a proxy in trustedProxies')
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
    .describe('Send the client’s address to the broker in a PROXY protocol header, which the broker must expect'),
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

const tunnel = z
  .strictObject({
    ...pathConditions,
    hosts: z
      .array(hostPattern)
      .min(1)
      .optional()
      .describe(
        'Host names of the tunnel: a.example, *.a.example or /regular expression/, which is matched with the host and its port if it contains a colon (ports 80 and 443 are left out); default: any',
      ),
    ports: z
      .array(
        z.union([z.int().min(1).max(65535), z.string().regex(/^unix:.+/)], { error: 'must be a port or unix:/path' }),
      )
      .min(1)
      .optional()
      .describe('Ports of the listeners that serve the tunnel; default: all'),
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
      .describe('Respond with this subprotocol even if the client did not offer it, as subproto of mod_websocket'),
    origins: z
      .array(origin)
      .default(['same-origin'])
      .describe(
        'Pages that may connect: same-origin, https://a.example, *.a.example, /regular expression/, null, or *',
      ),
    requireOrigin: z
      .boolean()
      .default(false)
      .describe('Refuse requests without Origin: they come from programs, not from pages'),
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
    if (givenPaths(value).length !== 1) {
      context.addIssue({ code: 'custom', message: 'needs exactly one of path, pathPrefix, pathSuffix and pathPattern' })
    }
  })

/** Every option of mqway. The input is the content of a file; the output has defaults, and numbers instead of units. */
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
      proxyProtocol,
      redirect: z.boolean().default(false).describe('Redirect every request to https, at the same host'),
    })
    .prefault({})
    .describe('The plain web server'),
  https: z
    .strictObject({
      port: webPort.default(8443).describe(webPortDescription),
      host: listenerHost,
      unixSocketMode,
      proxyProtocol,
      cert: file.optional().describe('Certificate chain (PEM); without it and acme, a development certificate is made'),
      key: file.optional().describe('Its private key (PEM); may be the same file as cert'),
      chain: file.optional().describe('Certificates of intermediate CAs, if cert has none (PEM)'),
      certificates: z
        .array(namedCertificate)
        .default([])
        .describe('Certificates for certain server names (SNI); the first whose hosts match is used'),
      acme: acme
        .optional()
        .describe(
          'A certificate that mqway gets from a CA by ACME, such as Let’s Encrypt, and renews; in place of cert and key',
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
      proxyProtocol,
    })
    .prefault({})
    .describe('The plain MQTT port'),
  mqtts: z
    .strictObject({
      port: port
        .optional()
        .describe(
          'Port of MQTT over TLS; default: 8883 if https.cert or https.acme is given, the broker is embedded, mqtt.port is 1883 and mqtt.host is left out; otherwise off',
        ),
      host: listenerHost,
      unixSocketMode,
      proxyProtocol,
    })
    .prefault({})
    .describe('The port of MQTT over TLS, with the certificates of https'),
  embedded: z
    .strictObject({
      maxPacketSize: size({ min: '1KiB', max: '256MiB' }).prefault('16MiB').describe('Largest MQTT packet'),
      maxQueuedBytes: size({ min: '64KiB' })
        .prefault('1MiB')
        .describe(
          'Bytes buffered for one client before its publishers are slowed down. At 16 times as many, or two packets of maximum size, or if the client stops reading: messages of QoS 0 are dropped, those of QoS 1 and 2 close its connection',
        ),
      maxBufferedBytes: size({ min: '1MiB' })
        .prefault('256MiB')
        .describe(
          'Bytes of incomplete packets of all clients, and the same number for slow clients; one address may have half of each. Beyond: connections are closed',
        ),
      maxSubscriptions: wholeNumber(1, 1_000_000)
        .default(1000)
        .describe('Topic filters of one client. Beyond: 0x80 in SUBACK'),
      maxSubscriptionBytes: size({ min: '1KiB' })
        .prefault('256KiB')
        .describe('Bytes of all topic filters of one client. Beyond: 0x80 in SUBACK'),
      maxSubscriptionsBytes: size({ min: '1MiB' })
        .prefault('128MiB')
        .describe(
          'Bytes of the topic filters of all clients, plus 512 for each; one user or address may have half of them, and no more than are left for others. Beyond: 0x80 in SUBACK',
        ),
      maxQueuedMessages: wholeNumber(1, 1_000_000)
        .default(1000)
        .describe('Messages queued for a disconnected client. Beyond: new ones are dropped'),
      sessionExpiry: z
        .union([z.literal('off'), duration({ min: '1m' })], {
          error: 'must be off, or a time such as 7d, from 1m to 24d',
        })
        .prefault('7d')
        .describe('How long a session is kept after its client has disconnected; a client of MQTT 5 may ask for less'),
      maxKeepAlive: z
        .union([z.literal('off'), duration({ min: '1s', max: '18h' })], {
          error: 'must be off, or a time such as 5m, from 1s to 18h',
        })
        .default('off')
        .describe(
          'Longest keep alive of a client of MQTT 5: one that asks for more, or for none, is told this one. Earlier versions cannot be told',
        ),
      maxSessions: wholeNumber(1, 1_000_000)
        .default(10_000)
        .describe(
          'Sessions of disconnected clients. Beyond: the user or address with the most sessions loses the one that has been disconnected longest',
        ),
      maxSessionsPerUser: wholeNumber(1, 1_000_000)
        .default(100)
        .describe('Sessions of one user. Beyond: the one that has been disconnected longest ends'),
      maxAnonymousSessions: wholeNumber(0, 1_000_000)
        .default(0)
        .describe(
          'Sessions of clients without a user name from one address; 0: their sessions end with their connections',
        ),
      maxSessionBytes: size({ min: '1KiB' })
        .prefault('16MiB')
        .describe('Bytes of queued messages of one session. Beyond: new ones are dropped'),
      maxSessionsBytes: size({ min: '1MiB' })
        .prefault('256MiB')
        .describe(
          'Bytes of all sessions, in memory or on disk; one user or address may have half of them, and no more than are left for others',
        ),
      maxRetainedMessages: wholeNumber(1, 10_000_000)
        .default(100_000)
        .describe(
          'Topics with a retained message; one user or address may have half of them. Beyond: retained messages are delivered, but not stored',
        ),
      maxRetainedBytes: size({ min: '64KiB' })
        .optional()
        .describe(
          'Bytes of their topics, payloads and properties; one user or address may have half of them. Default: 256 MiB; in memory (data: none) 128 MiB',
        ),
    })
    .prefault({})
    .describe('Limits of the embedded broker'),
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
    .describe('Refused paths of pages and tunnels (403): suffixes such as ~ or .inc, or /regular expression/'),
  headers,
  compression,
  data: file
    .default('./data')
    .describe('Directory for sessions, retained messages and the journal; none for memory only'),
  push: z
    .union([z.literal('off'), pushSection(origin)], { error: 'must be off, or a mapping' })
    .prefault({})
    .describe('Event streams, long-polls and sockets on the same topics, with replay, presence and receipts; or off'),
  compat: compat.prefault({}).describe('HTTP interfaces of other systems, for their existing clients; needs push'),
  notify: notify.optional().describe('Mails and calls of webhooks about messages, and about the broker; needs push'),
  hosts: z
    .array(hostEntry)
    .optional()
    .describe(
      'Host names that are served besides localhost and loopback addresses: a.example, *.a.example, or * for all; others: 421. Default: all, or none if the web servers listen on loopback only',
    ),
  trustedProxies: z
    .array(addressRange)
    .default([])
    .describe(
      'Addresses or CIDR ranges of proxies whose X-Forwarded-For, -Proto and -Host are trusted; loopback, linklocal and uniquelocal are names for ranges',
    ),
  limits: z
    .strictObject({
      allow: z
        .array(addressRange)
        .min(1)
        .optional()
        .describe('Addresses or CIDR ranges that may connect; others: 403; default: all'),
      connections: wholeNumber(1, 1_000_000).default(10_000).describe('Open tunnels and MQTT connections. Beyond: 503'),
      connectionsPerAddress: wholeNumber(1, 1_000_000)
        .default(1000)
        .describe('Open tunnels and MQTT connections from one address. Beyond: 429'),
      headerSize: size({ min: '1KiB', max: '1MiB' })
        .prefault('16KiB')
        .describe('Size of all headers of a request. Beyond: 431'),
      handshakeTimeout: duration({ max: '5m' })
        .prefault('10s')
        .describe('Timeout of the TLS handshake, and of the headers of a request. Beyond: 408'),
      connectTimeout: duration({ max: '5m' })
        .prefault('10s')
        .describe('Timeout from the upgrade to a complete MQTT CONNECT'),
      connectSize: size({ min: '256B', max: '1MiB' }).prefault('64KiB').describe('Largest MQTT CONNECT packet'),
      closeTimeout: duration({ max: '5m' })
        .prefault('5s')
        .describe('Timeout from the close by one side to the close by the other'),
      connectionsPerUser: wholeNumberOrOff(1, 1_000_000)
        .default(1000)
        .describe('Open tunnels and MQTT connections of one user. Beyond: 429'),
      upgradesPerSecond: wholeNumberOrOff(1, 100_000)
        .default(100)
        .describe('New tunnels and MQTT connections from one address, on average. Beyond: 429'),
      upgradesBurst: wholeNumber(1, 1_000_000).default(1000).describe('Burst of this rate'),
      publishesPerSecond: wholeNumberOrOff(1, 1_000_000)
        .default('off')
        .describe(
          'Messages that one connection publishes to the embedded broker, over HTTP or over sockets, on average. Beyond: the connection is read more slowly; 429 over HTTP and sockets',
        ),
      publishesBurst: wholeNumber(1, 1_000_000).default(100).describe('Burst of this rate'),
      anonymousPublishesPerSecond: wholeNumberOrOff(1, 1_000_000)
        .default(100)
        .describe(
          'Messages that clients without a user name publish from one address to the embedded broker, over HTTP or over sockets, on average; applies with access or anonymous: true. Beyond: the connection is read more slowly; 429 over HTTP and sockets',
        ),
      anonymousPublishesBurst: wholeNumber(1, 1_000_000).default(1000).describe('Burst of this rate'),
      anonymousPublishBytesPerSecond: z
        .union([z.literal('off'), size({ min: '1KiB' })], {
          error: 'must be off, or a size with its unit, such as 256KiB or 1MiB, from 1KiB to 1024GiB',
        })
        .prefault('1MiB')
        .describe('Bytes of these messages, on average; the burst is 16 seconds of this rate'),
      bytesPerSecond: z
        .union([z.literal('off'), size({ min: '1KiB' })], {
          error: 'must be off, or a size with its unit, such as 256KiB or 1MiB, from 1KiB to 1024GiB',
        })
        .prefault('off')
        .describe('Bytes per second of one connection, in each direction; beyond, it is slowed down'),
      requestsPerSecond: wholeNumberOrOff(1, 1_000_000)
        .default(1000)
        .describe('Requests to /v1/ from one address, on average. Beyond: 429'),
      requestsBurst: wholeNumber(1, 10_000_000).default(5000).describe('Burst of this rate'),
      bodySize: size({ min: '1KiB', max: '256MiB' }).prefault('1MiB').describe('Body of one request. Beyond: 413'),
      bodyTimeout: duration({ min: '1s', max: '1h' })
        .prefault('30s')
        .describe(
          'Timeout of the body of a request, or of a message on a plain WebSocket. Beyond: 408, or close code 1008',
        ),
      jsonValues: wholeNumber(100, 10_000_000)
        .default(50_000)
        .describe(
          'Members and elements of one JSON document from a client, counted as commas, colons and opening brackets. Beyond: 400',
        ),
      urlLength: size({ min: '256B', max: '64KiB' })
        .prefault('8KiB')
        .describe('URL of one request with its query. Beyond: 414'),
      topicLevels: wholeNumber(1, 100)
        .default(32)
        .describe('Levels of a topic or a topic filter in the embedded broker'),
      topicLength: size({ min: '16B', max: '64KiB' })
        .prefault('1KiB')
        .describe('Length of a topic or a topic filter in the embedded broker'),
    })
    .prefault({})
    .describe('Limits on clients'),
  metrics: z
    .strictObject({
      allow: z
        .array(addressRange)
        .default(['loopback'])
        .describe(
          'Addresses or CIDR ranges that may read /metrics; they also see the addresses of brokers at /readyz and in the errors 502, 503 and 504',
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
  accessLog,
  control: z
    .string()
    .regex(/^unix:.+/, { error: 'must be unix:/path/to/socket' })
    .optional()
    .describe(
      'A Unix socket for mqway reload and mqway check --diff, for the user of the gateway and root only: unix:/run/mqway/control.sock',
    ),
  workers: z
    .union(
      [z.literal('auto'), z.int().min(1, { error: '', abort: true }).max(maxWorkers, { error: '', abort: true })],
      {
        error: `must be auto, or a whole number from 1 to ${maxWorkers}`,
      },
    )
    .default(1)
    .describe(
      'Processes that serve the same ports; auto: one for each processor. More than 1 needs another broker than the embedded one, and push.journal.redis or no push',
    ),
  shutdown: z
    .strictObject({
      grace: duration({ max: '1h' }).prefault('10s').describe('Maximum time from SIGTERM to the exit'),
    })
    .prefault({})
    .describe('Stopping'),
})

/** The output of the schema, before the checks of options together. */
export type ParsedConfig = z.output<typeof configSchema>
/** The configuration as the program uses it: complete, in milliseconds and bytes, frozen. */
export type Config = ParsedConfig & {
  readonly mqtt: { readonly port: Exclude<ParsedConfig['mqtt']['port'], undefined> }
  readonly mqtts: { readonly port: Exclude<ParsedConfig['mqtts']['port'], undefined> }
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
