import { resolve } from 'node:path'
import type { Logger } from '../base/log.js'
import { allowsAnonymous, type JwtConfig, type WebhookConfig } from '../config/access.js'
import type { Config } from '../config/schema.js'
import type { SharedState } from '../storage/shared-state.js'
import { Authenticator, type Verifiers } from './authenticator.js'
import { parseHtpasswd, type Users } from './htpasswd.js'
import type { Passwords } from './passwords.js'
import { Tickets } from './tickets.js'
import type { Tokens } from './tokens.js'
import { TopicRules } from './topic-rules.js'
import { WatchedFile } from './watched-file.js'
import type { Webhook } from './webhook.js'

/** Authentication and authorization of another configuration. */
export interface PreparedAccess {
  /** Puts it into effect; passwords that are no longer valid are revoked. */
  commit(): void
  /** Closes what is not in use: after `commit` that of the former configuration, before it that of the other one. */
  close(): Promise<void>
}

/** Authentication and authorization as configured. */
export interface Access {
  /** `undefined` without `access:`: everybody is anonymous, and credentials are ignored. */
  readonly authenticator: Authenticator | undefined
  readonly tickets: Tickets
  readonly rules: TopicRules
  /** Reads the files of passwords, keys and secrets again. Logs an invalid one, and keeps its last content. */
  reload(): Promise<void>
  /**
   * Opens what another configuration needs beyond the present one. Whether there is access control at all, client certificates and tickets stay.
   *
   * @throws {StartError} when a file cannot be read or used; nothing has changed then
   */
  prepare(config: Config): Promise<PreparedAccess>
  /** Stops watching files, and aborts requests to the webhook. Idempotent. */
  close(): Promise<void>
}

/** A part of the configuration with what was opened for it. */
interface Opened<T> {
  /** The configured values: the part is used on while they stay the same. */
  readonly key: string
  readonly part: T
  reload(): Promise<void>
  close(): Promise<void>
}

interface OpenedParts {
  readonly users?: Opened<WatchedFile<Users>> | undefined
  readonly tokens?: Opened<Tokens> | undefined
  readonly webhook?: Opened<Webhook> | undefined
}

/**
 * Opens authentication and authorization, and imports only the libraries that the configuration needs.
 *
 * @param cwd the directory that relative paths start from
 * @param state keeps tickets and counts of wrong passwords
 * @throws {StartError} when a file cannot be read or used; the other files are closed
 */
export async function openAccess(config: Config, cwd: string, log: Logger, state: SharedState): Promise<Access> {
  let passwords: Passwords | undefined
  const open = (next: Config, known: OpenedParts): Promise<OpenedParts> =>
    openParts(next, known, { cwd, log, onUsersChanged: () => passwords?.usersChanged() })
  let current = await open(config, {})
  /** The same object for all files, so that each revokes the passwords of another one. */
  const openPasswords = async ({ users }: OpenedParts): Promise<void> => {
    if (!users || passwords) return
    const { Passwords } = await import('./passwords.js')
    passwords = new Passwords({ users: () => current.users?.part.current ?? noUsers })
  }
  await openPasswords(current)
  const verifiersOf = (next: Config, { users, tokens, webhook }: OpenedParts): Verifiers => ({
    passwords: users && passwords,
    tokens: tokens?.part,
    webhook: webhook?.part,
    acceptsCertificates: next.access?.clientCertificates !== undefined,
    allowsAnonymous: allowsAnonymous(next),
  })
  const { access, limits } = config
  const tickets = new Tickets({
    ...(access?.tickets ?? { expires: 0, max: 0 }),
    state,
    revocationOf: (user, credential) => passwords?.revocationOf(user, credential),
  })
  const authenticator =
    access === undefined ? undefined : new Authenticator({ ...verifiersOf(config, current), tickets, state })
  const rules = new TopicRules(access, limits)
  return {
    ...{ authenticator, tickets, rules },
    reload: async () => {
      await Promise.all(listParts(current).map(part => part.reload()))
    },
    prepare: async next => {
      const parts = await open(next, current)
      await openPasswords(parts)
      let [unused, used] = [parts, current]
      return {
        commit: () => {
          ;[unused, used] = [used, unused]
          current = parts
          authenticator?.configure(verifiersOf(next, parts))
          rules.configure(next.access)
          passwords?.usersChanged()
        },
        close: () => closeParts(unused, used),
      }
    },
    close: () => closeParts(current),
  }
}

const noUsers: Users = new Map()

interface OpenOptions {
  readonly cwd: string
  readonly log: Logger
  readonly onUsersChanged: () => void
}

/** Opens the parts of a configuration, or takes those of `known` that are configured in the same way. */
async function openParts({ access }: Config, known: OpenedParts, options: OpenOptions): Promise<OpenedParts> {
  const opened: { -readonly [K in keyof OpenedParts]: OpenedParts[K] } = {}
  try {
    opened.users = await keepOrOpen(access?.htpasswd, known.users, path => openUsers(path, options))
    opened.tokens = await keepOrOpen(access?.jwt, known.tokens, jwt => openTokens(jwt, options))
    opened.webhook = await keepOrOpen(access?.webhook, known.webhook, openWebhook)
    return opened
  } catch (error) {
    await closeParts(opened, known)
    throw error
  }
}

async function keepOrOpen<C, T>(
  config: C | undefined,
  known: Opened<T> | undefined,
  open: (config: C) => Promise<Omit<Opened<T>, 'key'>>,
): Promise<Opened<T> | undefined> {
  if (config === undefined) return undefined
  const key = JSON.stringify(config)
  return known?.key === key ? known : { ...(await open(config)), key }
}

function listParts({ users, tokens, webhook }: OpenedParts): readonly Opened<unknown>[] {
  return [users, tokens, webhook].flatMap(part => part ?? [])
}

/** @param kept parts that stay open */
async function closeParts(parts: OpenedParts, kept: OpenedParts = {}): Promise<void> {
  const stay = listParts(kept)
  await Promise.all(listParts(parts).flatMap(part => (stay.includes(part) ? [] : part.close())))
}

async function openUsers(path: string, { cwd, log, onUsersChanged }: OpenOptions) {
  const part = await WatchedFile.start({
    path: resolve(cwd, path),
    what: 'the password file',
    parse: content => parseHtpasswd(content.toString()),
    onChanged: onUsersChanged,
    log,
  })
  return { part, reload: () => part.reload(), close: () => part.close() }
}

async function openTokens(config: JwtConfig, { cwd, log }: OpenOptions) {
  const [{ openTokenKeys }, { Tokens }] = await Promise.all([import('./token-keys.js'), import('./tokens.js')])
  const keys = await openTokenKeys(config, cwd, log)
  return { part: new Tokens({ config, keys }), reload: () => keys.reload(), close: () => keys.close() }
}

async function openWebhook(config: WebhookConfig) {
  const { Webhook } = await import('./webhook.js')
  const part = new Webhook({ config })
  return { part, reload: async () => {}, close: async () => part.close() }
}
