import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { chmod, mkdir, open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { SecureContextOptions } from 'node:tls'
import { codeOf } from '../base/error-code.js'
import type { Logger } from '../base/log.js'
import { replaceFile } from './replace-file.js'

export interface SessionTicketKeysOptions {
  /** The data directory; `undefined` to have keys in memory only. */
  readonly data: string | undefined
  readonly log: Logger
  /** The key that other processes have, without a data directory. Default: none. */
  readonly shared?: (() => Promise<{ readonly bytes: Uint8Array; readonly created: number }>) | undefined
  /** Milliseconds between two checks of the key's age and of its file. Default: 1 minute. */
  readonly checkInterval?: number
  /** Milliseconds since 1970. */
  readonly now?: () => number
}

/** A TLS server whose ticket key changes while it runs. */
export interface TicketServer {
  setTicketKeys(keys: Buffer): void
}

/** Name, MAC key and AES key of tickets (RFC 5077 §4), 16 bytes each, and when they were made. */
interface TicketKey {
  readonly bytes: Buffer
  /** Milliseconds since 1970. */
  readonly created: number
}

const keyBytes = 48
/**
 * Milliseconds for which a key is used, and seconds for which a client may use a ticket. Node has one key at a time, so that a ticket ends with
 * its key: see docs/decisions/0017.
 */
const keyLifetime = 24 * 60 * 60 * 1000
const ticketLifetime = keyLifetime / 1000
const defaultCheckInterval = 60 * 1000
/** Milliseconds that a key may come from the future: another process's clock, or one that was set back a little. */
const clockTolerance = 60 * 1000

/** Node's default depends on the command line, so that a restart with other flags would refuse each ticket. */
const sessionIdContext = 'mqway'

const privateDirectory = 0o700
const privateFile = 0o600
const permissionsOfOthers = 0o077
/** The file has some 120 bytes. */
const maxFileBytes = 1024

/**
 * The key that encrypts TLS session tickets (RFC 5077; RFC 8446 §4.6.1), replaced every 24 hours, and kept in `tls/ticket-key.json` of the
 * data directory, so that clients resume their sessions after a restart.
 *
 * Several processes may share the file: each reads it once a minute, and takes the key of whichever was the last to write it.
 */
export class SessionTicketKeys {
  readonly #log: Logger
  readonly #file: string | undefined
  readonly #checkInterval: number
  readonly #now: () => number
  readonly #shared: SessionTicketKeysOptions['shared']
  readonly #servers = new Set<TicketServer>()
  #current: TicketKey
  #timer: NodeJS.Timeout | undefined
  #working: Promise<void> = Promise.resolve()
  #isStorable = true
  #closed = false

  private constructor({ data, log, shared, checkInterval, now }: SessionTicketKeysOptions) {
    this.#shared = shared
    this.#log = log
    this.#file = data === undefined ? undefined : join(data, 'tls', 'ticket-key.json')
    this.#checkInterval = checkInterval ?? defaultCheckInterval
    this.#now = now ?? Date.now
    this.#current = this.#generate()
  }

  /** Reads or makes the key. Never rejects: a key that cannot be kept is logged, and stays in memory. */
  static async open(options: SessionTicketKeysOptions): Promise<SessionTicketKeys> {
    const keys = new SessionTicketKeys(options)
    await keys.refresh()
    keys.#schedule()
    return keys
  }

  /** The key in use. */
  get current(): { readonly bytes: Buffer; readonly created: number } {
    return this.#current
  }

  /** Options of a TLS server whose sessions can be resumed. */
  get secureContext(): SecureContextOptions {
    return { ticketKeys: this.#current.bytes, sessionTimeout: ticketLifetime, sessionIdContext }
  }

  /** Applies new keys to `server`. */
  serve(server: TicketServer): void {
    this.#servers.add(server)
  }

  /** Reads the file, and replaces a key that is too old. Never rejects. */
  refresh(): Promise<void> {
    this.#working = this.#working.then(async () => {
      if (!this.#closed) await this.#refresh()
    })
    return this.#working
  }

  /** Stops the checks; resolves when no file is being read or written. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#working
  }

  #schedule(): void {
    this.#timer = setTimeout(async () => {
      await this.refresh()
      if (!this.#closed) this.#schedule()
    }, this.#checkInterval)
    this.#timer.unref()
  }

  async #refresh(): Promise<void> {
    if (this.#file === undefined) {
      const shared = await this.#shared?.().catch(() => undefined)
      if (shared) this.#use({ bytes: Buffer.from(shared.bytes), created: shared.created })
      else if (!this.#isFresh(this.#current)) this.#use(this.#generate())
      return
    }
    try {
      this.#use(await this.#readOrReplace(this.#file))
      this.#isStorable = true
    } catch (error) {
      if (!this.#isFresh(this.#current)) this.#use(this.#generate())
      if (this.#isStorable) this.#warn('cannot be kept, so no TLS session is resumed after a restart', error)
      this.#isStorable = false
    }
  }

  /** A missing file gets a key that was never used: deleting the file is how an operator invalidates all tickets. */
  async #readOrReplace(file: string): Promise<TicketKey> {
    await makePrivateDirectory(dirname(file))
    let refusal: unknown
    try {
      const stored = await readKey(file)
      if (this.#isFresh(stored)) return stored
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') refusal = error
    }
    const made = this.#generate()
    const content = { created: new Date(made.created).toISOString(), key: made.bytes.toString('base64') }
    await replaceFile(file, `${JSON.stringify(content)}\n`, privateFile)
    if (refusal !== undefined) this.#warn('was replaced', refusal)
    return made
  }

  /** A key of the future comes from a clock that was set back: it would live too long. */
  #isFresh({ created }: TicketKey): boolean {
    const age = this.#now() - created
    return age < keyLifetime && age >= -clockTolerance
  }

  #generate(): TicketKey {
    return { bytes: randomBytes(keyBytes), created: this.#now() }
  }

  #use(key: TicketKey): void {
    if (key.bytes.equals(this.#current.bytes)) return
    this.#current = key
    for (const server of this.#servers) server.setTicketKeys(key.bytes)
    this.#log.debug({ created: new Date(key.created).toISOString() }, 'Using another key for TLS session tickets')
  }

  #warn(what: string, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error)
    this.#log.warn({ file: this.#file }, `The key of TLS session tickets in ${this.#file} ${what}: ${reason}`)
  }
}

async function makePrivateDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: privateDirectory })
  await chmod(directory, privateDirectory)
}

/** @throws for a file that is missing, damaged, or not this user's alone */
async function readKey(file: string): Promise<TicketKey> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const { mode, uid, size } = await handle.stat()
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw new Error('it is not a file')
    const user = process.geteuid?.()
    if (user !== undefined && uid !== user) throw new Error(`it belongs to user ${uid}`)
    if ((mode & permissionsOfOthers) !== 0) {
      throw new Error(`others may read or write it (mode ${(mode & 0o777).toString(8).padStart(4, '0')})`)
    }
    if (size > maxFileBytes) throw new Error('it is damaged')
    return parseKey(await handle.readFile('utf8'))
  } finally {
    await handle.close()
  }
}

function parseKey(text: string): TicketKey {
  const { created, key } = parseFields(text)
  const bytes = Buffer.from(String(key), 'base64')
  const time = Date.parse(String(created))
  if (bytes.length !== keyBytes || Number.isNaN(time)) throw new Error('it is damaged')
  return { bytes, created: time }
}

function parseFields(text: string): Record<string, unknown> {
  try {
    return { ...JSON.parse(text) }
  } catch (cause) {
    throw new Error('it is damaged', { cause })
  }
}
