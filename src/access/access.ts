import { resolve } from 'node:path'
import type { Logger } from '../base/log.js'
import { allowsAnonymous } from '../config/access.js'
import type { Config } from '../config/schema.js'
import type { SharedState } from '../storage/shared-state.js'
import { Authenticator } from './authenticator.js'
import { parseHtpasswd } from './htpasswd.js'
import type { Passwords } from './passwords.js'
import { Tickets } from './tickets.js'
import type { Tokens } from './tokens.js'
import { TopicRules } from './topic-rules.js'
import { WatchedFile } from './watched-file.js'
import type { Webhook } from './webhook.js'

/** Authentication and authorization as configured. */
export interface Access {
  /** `undefined` without `access:`: everybody is anonymous, and credentials are ignored. */
  readonly authenticator: Authenticator | undefined
  readonly tickets: Tickets
  readonly rules: TopicRules
  /** Reads the files of passwords, keys and secrets again. Logs an invalid one, and keeps its last content. */
  reload(): Promise<void>
  /** Stops watching files, and aborts requests to the webhook. Idempotent. */
  close(): Promise<void>
}

interface Part {
  reload(): Promise<void>
  close(): Promise<void>
}

/**
 * Opens authentication and authorization, and imports only the libraries that the configuration needs.
 *
 * @param cwd the directory that relative paths start from
 * @param state keeps tickets and counts of wrong passwords
 * @throws {StartError} when a file cannot be read or used; the other files are closed
 */
export async function openAccess(config: Config, cwd: string, log: Logger, state: SharedState): Promise<Access> {
  const parts: Part[] = []
  const close = async (): Promise<void> => {
    await Promise.all(parts.splice(0).map(part => part.close()))
  }
  try {
    const passwords = await openPasswords(config, cwd, log, parts)
    const tokens = await openTokens(config, cwd, log, parts)
    const webhook = await openWebhook(config, parts)
    const { access, limits } = config
    const tickets = new Tickets({
      ...(access?.tickets ?? { expires: 0, max: 0 }),
      state,
      revocationOf: (user, credential) => passwords?.revocationOf(user, credential),
    })
    const acceptsCertificates = access?.clientCertificates !== undefined
    const options = {
      passwords,
      tokens,
      webhook,
      ...{ tickets, state },
      acceptsCertificates,
      allowsAnonymous: allowsAnonymous(config),
    }
    return {
      authenticator: access === undefined ? undefined : new Authenticator(options),
      tickets,
      rules: new TopicRules(access, limits),
      reload: async () => {
        await Promise.all(parts.map(part => part.reload()))
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

async function openPasswords(
  { access }: Config,
  cwd: string,
  log: Logger,
  parts: Part[],
): Promise<Passwords | undefined> {
  if (access?.htpasswd === undefined) return undefined
  const { Passwords } = await import('./passwords.js')
  const parse = (content: Buffer) => parseHtpasswd(content.toString())
  const file = await WatchedFile.start({
    path: resolve(cwd, access.htpasswd),
    what: 'the password file',
    parse,
    onChanged: () => passwords.usersChanged(),
    log,
  })
  const passwords = new Passwords({ users: () => file.current })
  parts.push(file)
  return passwords
}

async function openTokens({ access }: Config, cwd: string, log: Logger, parts: Part[]): Promise<Tokens | undefined> {
  if (access?.jwt === undefined) return undefined
  const [{ openTokenKeys }, { Tokens }] = await Promise.all([import('./token-keys.js'), import('./tokens.js')])
  const keys = await openTokenKeys(access.jwt, cwd, log)
  parts.push(keys)
  return new Tokens({ config: access.jwt, keys })
}

async function openWebhook({ access }: Config, parts: Part[]): Promise<Webhook | undefined> {
  if (access?.webhook === undefined) return undefined
  const { Webhook } = await import('./webhook.js')
  const webhook = new Webhook({ config: access.webhook })
  parts.push({ reload: async () => {}, close: async () => webhook.close() })
  return webhook
}
