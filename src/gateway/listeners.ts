import { resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { readClientCertificate } from '../access/client-certificate.js'
import { SocketLimits } from '../access/socket-limits.js'
import type { Logger } from '../base/log.js'
import type { Broker } from '../broker/broker.js'
import { portsOf } from '../config/listeners.js'
import { developmentCertificates } from '../config/private-files.js'
import type { Config } from '../config/schema.js'
import type { AcmeCertificate } from '../server/acme/acme-certificate.js'
import { withChallengeResponses } from '../server/acme/pending-challenges.js'
import { AttachedServer, type ProgramServer } from '../server/attached-server.js'
import type { CertificateFiles } from '../server/certificate.js'
import { type CertificateSet, startCertificateSet } from '../server/certificate-set.js'
import type { SecureServer } from '../server/certificates.js'
import { descriptorLimit, socketsWithin } from '../server/descriptors.js'
import type { InheritedSocket } from '../server/inherited-sockets.js'
import { type BoundAddress, formatUrl, type Listener, type ListenOptions } from '../server/listener.js'
import {
  type MqttListenerOptions,
  type MqttsListenerOptions,
  startMqttListener,
  startMqttsListener,
} from '../server/mqtt-listener.js'
import { PipelinedRequests } from '../server/pipelined-requests.js'
import { ProxiedConnections } from '../server/proxied-connections.js'
import { SessionTicketKeys } from '../server/session-ticket-keys.js'
import { StreamQueue } from '../server/stream-queue.js'
import type { UpgradeRouter } from '../server/upgrade.js'
import { type CertificateSource, startHttp, startHttps, type WebApp } from '../server/web-servers.js'
import { TcpClient } from '../tunnel/client.js'
import type { TunnelOptions } from '../tunnel/tunnel.js'
import { withAccessLog } from './access-log.js'
import { openAcme } from './acme.js'
import type { CloseStack } from './close-stack.js'
import type { GatewayContext } from './context.js'
import { tunnelOptions } from './routes.js'
import type { ServedWebApp } from './web-app.js'

/** Sockets per counted connection: page requests, and connections about to be refused with a response, come on top. */
const socketsPerConnection = 2

export class Listeners {
  /** As the configuration is now. */
  #context: GatewayContext
  readonly #opened: CloseStack
  readonly #inherited: readonly InheritedSocket[]
  readonly #listeners: Listener[] = []
  /** Bound addresses. */
  readonly #bound: { readonly scheme: 'http' | 'https' | 'mqtt' | 'mqtts'; readonly address: BoundAddress }[] = []
  readonly #proxied: ProxiedConnections[] = []
  readonly #sockets: SocketLimits
  #acme: AcmeCertificate | undefined
  #certificates: ServedCertificates | undefined
  #ticketKeys: SessionTicketKeys | undefined
  #httpsPort: number | undefined

  /** @param opened closes each listener */
  constructor(context: GatewayContext, opened: CloseStack, inherited: readonly InheritedSocket[]) {
    const { config, log } = context
    this.#context = context
    this.#opened = opened
    this.#inherited = inherited
    this.#sockets = new SocketLimits({
      ...socketBounds(config),
      max: maxSockets(config, log, context.group?.workers),
      others: context.group?.counts.others('sockets'),
    })
  }

  /** Every URL that a person can open or connect to. */
  get urls(): string[] {
    const paths = this.#context.config.tunnels.flatMap(({ path, pathPrefix }) => path ?? pathPrefix ?? [])
    return this.#bound.flatMap(({ scheme, address }) => {
      const url = formatUrl(scheme, address)
      if (scheme === 'mqtt' || scheme === 'mqtts' || 'path' in address) return url
      const base = formatUrl(scheme === 'https' ? 'wss' : 'ws', address)
      return [url, ...paths.map(path => base + path)]
    })
  }

  /**
   * Opens the certificates of another configuration, if they differ.
   *
   * @returns applies the other configuration to the connections from now on
   * @throws {StartError} when a certificate cannot be used; nothing has changed then
   */
  async prepare(next: GatewayContext, opened: CloseStack): Promise<() => void> {
    const served = this.#certificates
    const areSame = isDeepStrictEqual(certificateOptions(this.#context.config), certificateOptions(next.config))
    const certificates =
      served && !areSame ? opened.add(await startCertificates(next, this.#ticketKeys, this.#acme?.files)) : undefined
    return () => {
      this.#context = next
      this.#sockets.configure(socketBounds(next.config))
      for (const listener of this.#listeners) listener.setMaxConnections?.(maxConnections(next.config))
      for (const proxied of this.#proxied) proxied.configure(next.config)
      if (certificates) served?.replace(certificates)
    }
  }

  /** The first TCP port of HTTPS; `undefined` if there is none (yet). */
  get httpsPort(): number | undefined {
    return this.#httpsPort
  }

  /** @throws {StartError} when an address cannot be bound or a certificate cannot be used */
  async startWeb(app: WebApp, router: UpgradeRouter): Promise<void> {
    const { config, tickBudget, slices, unreadResponses, accessLog, log, metrics } = this.#context
    const { http, https, limits } = config
    const acme = await openAcme(this.#context)
    this.#acme = acme && this.#opened.add(acme)
    const options = {
      ...{ limits, unreadResponses, accessLog, tickBudget, slices, log, metrics },
      app: withAccessLog(acme ? withChallengeResponses(app, acme.challenges) : app, accessLog),
      onUpgrade: (...upgrade: Parameters<UpgradeRouter['handle']>) => router.handle(...upgrade),
      maxConnections: maxConnections(this.#context.config),
      sockets: this.#sockets,
      pipelined: new PipelinedRequests({ log, metrics }),
      streams: new StreamQueue(tickBudget.open()),
    }
    for (const port of portsOf(http.port)) {
      this.#add('http', await startHttp({ ...options, ...this.#locationOf(http), port }))
    }
    const httpsPorts = portsOf(https.port)
    if (httpsPorts.length === 0) return
    const certificates = await this.#openCertificates()
    for (const port of httpsPorts) {
      const tls = { certificates, challenges: acme?.challenges }
      const listener = await startHttps({ ...options, ...tls, ...this.#locationOf(https), port })
      this.#httpsPort ??= listener.addresses.flatMap(address => ('port' in address ? address.port : []))[0]
      this.#add('https', listener)
    }
  }

  /** @throws {StartError} when an address cannot be bound or a certificate cannot be used */
  async startMqtt(broker: Broker): Promise<void> {
    const { config, tunnels, limits, users, nextId, tickBudget, log, metrics } = this.#context
    const { mqtt, mqtts } = config
    const site = { checkAddress: (address: string) => this.#context.site.checkAddress(address) }
    const ofMqtt = { inspectConnect: true, pingInterval: 'off' } as const
    let own = { of: this.#context, options: tunnelOptions(this.#context, ofMqtt) }
    const currentOptions = (): TunnelOptions => {
      if (own.of !== this.#context) own = { of: this.#context, options: tunnelOptions(this.#context, ofMqtt) }
      return own.options
    }
    const listening = (transport: 'tcp' | 'tls'): Omit<MqttListenerOptions, 'host' | 'port'> => ({
      ...{
        site,
        limits,
        nextId,
        tickBudget,
        log,
        metrics,
        maxConnections: maxConnections(config),
        sockets: this.#sockets,
      },
      accept: (socket, peer, child) =>
        tunnels.open({ broker, peer, transport, options: currentOptions(), log: child }, () =>
          socket.destroyed ? undefined : new TcpClient(socket, transport),
        ),
    })
    if (mqtt.port !== 'off') {
      this.#add('mqtt', await startMqttListener({ ...listening('tcp'), ...this.#locationOf(mqtt), port: mqtt.port }))
    }
    if (mqtts.port === 'off') return
    const listener = await startMqttsListener({
      ...listening('tls'),
      ...{ ...this.#locationOf(mqtts), port: mqtts.port },
      ...{ users, certificates: await this.#openCertificates(), identify: identifyByCertificate(this.#context) },
      handshakeTimeout: config.limits.handshakeTimeout,
    })
    this.#add('mqtts', listener)
  }

  /** Answers the gateway's own requests on a server of another program, which stays that program's to close. */
  attach(
    server: ProgramServer,
    {
      app,
      hasRoute,
      router,
      except,
    }: ServedWebApp & { readonly router: UpgradeRouter; readonly except: readonly string[] },
  ): void {
    const { tickBudget, slices, unreadResponses, accessLog } = this.#context
    const own = (matches: (path: string) => boolean) => (path: string) => matches(path) && !except.includes(path)
    const attached = new AttachedServer(server, {
      app: withAccessLog(app, accessLog),
      ...{ unreadResponses, slices, streams: new StreamQueue(tickBudget.open()) },
      onUpgrade: (...upgrade) => router.handle(...upgrade),
      ownsRequest: own(path => hasRoute(path) || router.matches(path)),
      ownsUpgrade: own(path => router.matches(path)),
    })
    this.#listeners.push(attached)
    this.#opened.add({ close: () => attached.detach() })
  }

  /** Begins to order certificates, when all servers have started. */
  startOrders(): void {
    this.#acme?.start(async () => this.#certificates?.reload())
  }

  /** Reads the files of certificates again, and repeats a failed order. */
  async reloadCertificates(): Promise<void> {
    this.#acme?.retry()
    await this.#certificates?.reload()
  }

  /** Stops accepting. Resolves when every connection has ended. */
  async close(): Promise<void> {
    await Promise.all([this.#acme?.close(), ...this.#listeners.map(listener => listener.close())])
  }

  destroyConnections(): void {
    for (const listener of this.#listeners) listener.destroyConnections()
  }

  /** The certificates of https, which MQTT over TLS shares. */
  async #openCertificates(): Promise<ServedCertificates> {
    if (this.#certificates) return this.#certificates
    this.#ticketKeys = await this.#openTicketKeys()
    const set = await startCertificates(this.#context, this.#ticketKeys, this.#acme?.files)
    this.#certificates = this.#opened.add(new ServedCertificates(set))
    return this.#certificates
  }

  /** None where clients are asked for certificates: no session is resumed there. */
  async #openTicketKeys(): Promise<SessionTicketKeys | undefined> {
    const { config, cwd, log, group } = this.#context
    if (config.access?.clientCertificates !== undefined) return undefined
    const data = config.data === 'none' ? undefined : resolve(cwd, config.data)
    return this.#opened.add(await SessionTicketKeys.open({ data, log, shared: group && (() => group.ticketKey()) }))
  }

  #add(scheme: 'http' | 'https' | 'mqtt' | 'mqtts', listener: Listener): void {
    this.#listeners.push(this.#opened.add(listener))
    this.#bound.push(...listener.addresses.map(address => ({ scheme, address })))
  }

  #locationOf(
    listener: Pick<Config['http'], 'host' | 'unixSocketMode' | 'proxyProtocol'>,
  ): Pick<ListenOptions, 'host' | 'unixSocketMode' | 'proxied' | 'inherited'> {
    const { host, trustedProxies, limits } = this.#context.config
    const proxied = listener.proxyProtocol
      ? new ProxiedConnections({ trustedProxies, timeout: limits.handshakeTimeout })
      : undefined
    if (proxied) this.#proxied.push(proxied)
    const { unixSocketMode } = listener
    return { host: listener.host ?? host, unixSocketMode, proxied, inherited: this.#inherited }
  }
}

/** The certificates in use, which a reload replaces. */
class ServedCertificates implements CertificateSource {
  readonly #servers: SecureServer[] = []
  #current: CertificateSet
  #replaced: Promise<void> = Promise.resolve()

  constructor(current: CertificateSet) {
    this.#current = current
  }

  get asksClients(): boolean {
    return this.#current.asksClients === true
  }

  get secureContext(): CertificateSource['secureContext'] {
    const { SNICallback, ...context } = this.#current.secureContext
    if (!SNICallback) return context
    // A server keeps its function.
    return {
      ...context,
      SNICallback: (serverName, done) => {
        const current = this.#current.secureContext.SNICallback
        if (current) current(serverName, done)
        else done(null, undefined)
      },
    }
  }

  serve(server: SecureServer): void {
    this.#servers.push(server)
    this.#current.serve(server)
  }

  /** Serves other certificates. Open connections keep theirs, also those whose handshake is under way. */
  replace(next: CertificateSet): void {
    const former = this.#current
    this.#current = next
    for (const server of this.#servers) {
      server.setSecureContext(next.secureContext)
      next.serve(server)
    }
    this.#replaced = Promise.all([this.#replaced, former.close()]).then(() => {})
  }

  reload(): Promise<void> {
    return this.#current.reload()
  }

  async close(): Promise<void> {
    await Promise.all([this.#current.close(), this.#replaced])
  }
}

function certificateOptions({ https }: Config) {
  const { cert, key, chain, certificates, minVersion } = https
  return { cert, key, chain, certificates, minVersion }
}

/** Sockets of one bound address. */
function maxConnections({ limits }: Config): number {
  return socketsPerConnection * limits.connections
}

function socketBounds({ limits, trustedProxies }: Config) {
  return { perAddress: socketsPerConnection * limits.connectionsPerAddress, trustedProxies }
}

/** Left out where clients are not asked for a certificate. */
function identifyByCertificate({
  config,
  access: { authenticator },
}: GatewayContext): MqttsListenerOptions['identify'] {
  const { clientCertificates } = config.access ?? {}
  if (authenticator === undefined || clientCertificates === undefined) return undefined
  return (socket, { address }) => {
    const certificate = readClientCertificate(socket, clientCertificates.user)
    if (certificate === undefined) return undefined
    return authenticator.identify({ credential: { kind: 'certificate', certificate }, transport: 'mqtt', address })
  }
}

/** Client sockets that the process's limit of file descriptors allows. */
function maxSockets({ broker, tunnels, limits: { connections } }: Config, log: Logger, workers = 1): number {
  const isEmbedded = [broker, ...tunnels.map(tunnel => tunnel.broker ?? broker)].every(one => one === 'embedded')
  const max = socketsWithin(descriptorLimit(), isEmbedded ? 1 : 2)
  if (max * workers < connections) {
    log.warn({ sockets: max, connections }, 'The limit of open files (ulimit -n) is below limits.connections')
  }
  return max
}

async function startCertificates(
  { config, cwd, log, metrics }: GatewayContext,
  ticketKeys: SessionTicketKeys | undefined,
  ordered: CertificateFiles | undefined,
): Promise<CertificateSet> {
  const { cert, key, chain, certificates, minVersion } = config.https
  const { ca, crl } = config.access?.clientCertificates ?? {}
  const clients = ca === undefined ? undefined : { ca: resolve(cwd, ca), crl: crl && resolve(cwd, crl) }
  const filesOf = (files: CertificateFiles): CertificateFiles => ({
    cert: resolve(cwd, files.cert),
    key: resolve(cwd, files.key),
    chain: files.chain && resolve(cwd, files.chain),
    clients,
  })
  const isGiven = cert !== undefined && key !== undefined
  const files = isGiven
    ? filesOf({ cert, key, chain })
    : { ...(ordered ?? (await makeDevelopmentFiles(cwd, log))), clients }
  const named = certificates.map(({ hosts, ...own }) => ({ hosts, files: filesOf(own) }))
  return startCertificateSet({ files, named, minVersion, ticketKeys, log, metrics })
}

/** Imported on demand: the library that signs certificates is the largest of all. */
async function makeDevelopmentFiles(cwd: string, log: Logger): Promise<CertificateFiles> {
  const { developmentCertificate } = await import('../server/development-certificate.js')
  return developmentCertificate({ directory: resolve(cwd, developmentCertificates), log })
}
