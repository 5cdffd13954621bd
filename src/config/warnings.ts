import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { filtersOverlap } from '../topics/match.js'
import { allowsAnonymous, ambientCredentials, isWebUrl } from './access.js'
import { acmeWarnings } from './acme.js'
import { namesSites } from './forms.js'
import { isLoopback, isTlsListener, type Listener, publicListeners } from './listeners.js'
import type { LoadedConfig } from './load.js'
import { parseSmtpUrl } from './notify.js'
import { displayPath, optionPath, secretOptions, textsIn } from './options.js'
import { pushOf } from './push.js'
import type { Config } from './schema.js'

/** A configuration, for warnings. */
export interface WarnedConfig {
  readonly config: Config
  /** The configuration file, if there is one. */
  readonly file: string | undefined
  readonly renamed?: LoadedConfig['renamed']
}

/** The permission bits of a file; `undefined` if there is no such file. */
export type FileMode = (file: string) => number | undefined

/** Reads permission bits; relative paths start from `cwd`. */
export function fileModes(cwd: string): FileMode {
  return file => statSync(resolve(cwd, file), { throwIfNoEntry: false })?.mode
}

/** Warnings of what is allowed but risky, or will not work; one line each, which begins with the option. */
export function riskWarnings(warned: WarnedConfig, modeOf: FileMode): string[] {
  return [...startWarnings(warned, modeOf), ...missingTopics(warned.config)]
}

/** The warnings of each start: those of features that `push.topics` leaves out are only for `mqway check`, as the list may be on purpose. */
export function startWarnings({ config, file, renamed = [] }: WarnedConfig, modeOf: FileMode): string[] {
  const open = publicListeners(config)
  return [
    ...renamed.map(({ former, current }) => `${displayPath(former)}: this option is named ${displayPath(current)} now`),
    ...anonymousWarnings(config, open),
    ...plainTextWarnings(config, open),
    ...originWarnings(config),
    ...unencryptedMailWarnings(config),
    ...plainWebhookWarnings(config),
    ...sendmailWarnings(config, modeOf),
    ...unmatchedRuleWarnings(config),
    ...jsonpWarnings(config),
    ...certificateWarnings(config, open),
    ...acmeWarnings(config),
    ...readableSecrets(config, file, modeOf),
  ]
}

function anonymousWarnings(config: Config, open: readonly Listener[]): string[] {
  const { access } = config
  const rules = (access?.rules ?? []).flatMap(({ to, publish }, index) =>
    to === 'anonymous' && publish.length > 0
      ? [`${displayPath(['access', 'rules', index, 'publish'])}: allows everybody to publish, also without a user name`]
      : [],
  )
  if (open.length === 0 || !allowsAnonymous(config)) return rules
  const where = open.map(listener => listener.name).join(', ')
  // Another broker has rules of its own.
  const embedded = [config.broker, ...config.tunnels.map(tunnel => tunnel.broker)].includes('embedded')
  const mayPublish = embedded && access?.rules === undefined ? ', and publish and read every topic' : ''
  return [`anonymous: clients on other machines can connect without credentials (${where})${mayPublish}`, ...rules]
}

/** Passwords, cookies and tokens that go unencrypted over a network. */
function plainTextWarnings(config: Config, open: readonly Listener[]): string[] {
  const { access } = config
  if (access === undefined) return []
  const carries = [
    ...(access.htpasswd === undefined && access.webhook === undefined ? [] : ['passwords']),
    ...(access.jwt?.cookie === undefined && !access.webhook?.headers.some(isCookie) ? [] : ['cookies']),
    ...(access.jwt === undefined ? [] : ['tokens']),
  ]
  const plain = carries.length === 0 ? [] : open.filter(({ name }) => !isTlsListener(name))
  return [
    ...plain.map(({ name }) => `${name}.port: takes ${carries.join(' and ')} unencrypted from other machines`),
    ...plainUrl('access.jwt.jwks', access.jwt?.jwks, 'insert keys into'),
    ...plainUrl('access.webhook.url', access.webhook?.url, 'read and change'),
  ]
}

/** @param risk what an attacker on the network could do */
function plainUrl(option: string, url: string | undefined, risk: string): string[] {
  if (url === undefined || !isPlainRemote(url)) return []
  return [`${option}: an attacker on the network could ${risk} http://; use https://`]
}

/** Messages that go unencrypted to the webhooks of rules. */
function plainWebhookWarnings({ notify }: Config): string[] {
  return (notify?.rules ?? []).flatMap(({ webhook }, index) =>
    plainUrl(displayPath(['notify', 'rules', index, 'webhook', 'url']), webhook?.url, 'read'),
  )
}

/** Origins that let any page use the cookies and certificates that browsers add by themselves (cross-site WebSocket hijacking). */
function originWarnings(config: Config): string[] {
  const { tunnels, push } = config
  const added = ambientCredentials(config.access)
  if (added.length === 0) return []
  const lists = [
    ...tunnels.map(({ origins }, index) => [displayPath(['tunnels', index, 'origins']), origins] as const),
    ...(push === 'off' ? [] : [['push.origins', push.origins] as const]),
  ]
  return lists.flatMap(([option, origins]) =>
    origins
      .filter(origin => !namesSites(origin))
      .map(
        origin =>
          `${option}: with ${origin}, pages of any site can connect as their visitors, whose browsers add ${added.join(' and ')}`,
      ),
  )
}

/** A script of any page can read JSONP, also from inside the network of its visitor. */
function jsonpWarnings(config: Config): string[] {
  const { push } = config
  if (push === 'off' || !push.jsonp) return []
  const isOpen = config.access === undefined || allowsAnonymous(config)
  return isOpen ? ['push.jsonp: pages of any site can read everything that anonymous clients may read'] : []
}

/** Topics of single connections that push does not read: their clients would never get a message. */
function missingTopics(config: Config): string[] {
  const push = pushOf(config)
  if (push === undefined) {
    const { clients } = config.push === 'off' ? {} : config.push
    return clients?.messages ? ['push.clients.messages: no message is published without push.topics'] : []
  }
  const lacks = (topic: string): boolean => !push.topics.some(filter => filtersOverlap(filter, topic))
  // `?` stands for any connection's id.
  const rrr = [
    ...(lacks('push/?') ? ['push/+'] : []),
    ...(lacks('httpserver/websocket/?/topic') ? ['httpserver/websocket/#'] : []),
  ]
  return [
    ...(lacks('socket/?/out')
      ? ['push.topics: without socket/#, what is for one socket (socket/<connection>/out) does not reach it']
      : []),
    ...(push.clients.messages && lacks('clients/?/connected')
      ? ['push.topics: without clients/#, messages of clients (push.clients.messages) are no events']
      : []),
    ...(config.compat.rrr !== 'off' && rrr.length > 0
      ? [`push.topics: without ${rrr.join(' and ')}, clients of RRR get nothing; compat.rrr: off where there are none`]
      : []),
  ]
}

function isCookie(header: string): boolean {
  return header.toLowerCase() === 'cookie'
}

function isPlainRemote(url: string): boolean {
  if (!isWebUrl(url)) return false
  const { protocol, hostname } = new URL(url)
  return protocol === 'http:' && !isLoopback(hostname.replace(/^\[|\]$/g, ''))
}

function certificateWarnings({ https }: Config, open: readonly Listener[]): string[] {
  if (https.cert !== undefined || https.acme !== undefined || !open.some(({ name }) => isTlsListener(name))) return []
  return ['https.cert: other machines get a development certificate, which no client trusts; name a real one']
}

const worldReadable = 0o004

function readableSecrets(config: Config, file: string | undefined, modeOf: FileMode): string[] {
  return secretFiles(config, file).flatMap(([option, path]) => {
    const mode = path === undefined ? undefined : modeOf(path)
    if (mode === undefined || (mode & worldReadable) === 0) return []
    return [`${option}: every user of this machine can read ${path}; chmod o= ${path}`]
  })
}

function secretFiles(config: Config, file: string | undefined): [option: string, path: string | undefined][] {
  const { access, https, notify } = config
  const keys = [config.broker, ...config.tunnels.map(tunnel => tunnel.broker)].flatMap(broker =>
    broker === undefined || typeof broker === 'string' || broker.key === undefined ? [] : [broker.key],
  )
  const inside = secretsInside(config)
  return [
    ...(inside.length === 0 ? [] : [[inside.join(', '), file] satisfies [string, string | undefined]]),
    ['https.key', https.key],
    ...https.certificates.map(({ key }) => ['https.certificates', key] satisfies [string, string]),
    ...[...new Set(keys)].map(key => ['broker.key', key] satisfies [string, string]),
    ['access.htpasswd', access?.htpasswd],
    ['access.jwt.secretFile', access?.jwt?.secretFile],
    ...(notify?.rules ?? []).map(
      ({ webhook }, index) =>
        [displayPath(['notify', 'rules', index, 'webhook', 'secretFile']), webhook?.secretFile] satisfies [
          string,
          unknown,
        ],
    ),
  ]
}

/** The options with secrets in the configuration file itself, and a URL with a query, which may be one. */
function secretsInside(config: Config): string[] {
  const secrets = secretOptions()
  return textsIn(config).flatMap(({ path, text }) => {
    const option = optionPath(path)
    const mayHoldToken = option === 'access.webhook.url' || option === 'notify.rules[].webhook.url'
    return secrets.has(option) || (mayHoldToken && text.includes('?')) ? [displayPath(path)] : []
  })
}

/** The permission bits of an executable file. */
const executable = 0o111

/** Mails, or the password for them, that go unencrypted to another machine. */
function unencryptedMailWarnings({ notify }: Config): string[] {
  const { smtp } = notify?.mail ?? {}
  const address = smtp && parseSmtpUrl(smtp.url)
  if (!smtp || !address || address.secure || smtp.startTLS === 'required' || isLoopback(address.host)) return []
  const what = smtp.password === undefined ? 'mails' : 'mails, and the password for them,'
  return [`notify.mail.smtp.startTLS: ${what} may go unencrypted to ${address.host}; use required`]
}

function sendmailWarnings({ notify }: Config, modeOf: FileMode): string[] {
  const program = notify?.mail?.sendmail
  if (program === undefined || ((modeOf(program) ?? 0) & executable) !== 0) return []
  return [`notify.mail.sendmail: there is no program ${program}; no mail goes until there is`]
}

/** Rules about topics that push does not read. */
function unmatchedRuleWarnings(config: Config): string[] {
  const topics = pushOf(config)?.topics ?? []
  return (config.notify?.rules ?? []).flatMap((rule, index) =>
    rule.topics.flatMap((filter, at) => {
      if (topics.some(pushed => filtersOverlap(pushed, filter))) return []
      const option = displayPath(['notify', 'rules', index, 'topics', at])
      return [`${option}: never matches: push.topics (${topics.join(', ')}) has no topic of ${filter}`]
    }),
  )
}
