import { createHmac, randomBytes } from 'node:crypto'
import { availableParallelism } from 'node:os'
import bcrypt from 'bcrypt'
import { GatewayError } from '../base/errors.js'
import { type Identity, knownAs } from '../base/identity.js'
import { QueueFullError, TaskQueue } from '../base/task-queue.js'
import { costOf, defaultCost, passwordProblem, type Users } from './htpasswd.js'
import { networkOf } from './limits.js'
import { Revocable } from './revocable.js'

/** What was found out about a user and a password: who it is, or why not. */
export type PasswordVerdict = Identity | 'wrong' | 'unknown-user'

export interface PasswordsOptions {
  /** The users as they are now. */
  readonly users: () => Users
  readonly now?: () => number
  /** How many hashes are computed at once. Default: one core is left to the event loop, and one thread to files. */
  readonly concurrent?: number
}

/** Hashes that wait to be computed, in all and for one address, which `WrongPasswords` lets ten through of. */
const waiting = { waiting: 1000, waitingPerKey: 100 }

/** For so long, in milliseconds, a right password need not be hashed again: long-polling sends it with each request. */
const rememberFor = 60_000
const maxRemembered = 10_000

/**
 * Checks passwords, in libuv's threads and never in the event loop's.
 *
 * A user who is not in the file costs as much time as a wrong password. An address (IPv6: a /64) that floods the queue
 * makes the others wait for one of its hashes and not for all. Who was let in with a password is so until it is another.
 */
export class Passwords {
  readonly #users: () => Users
  readonly #now: () => number
  readonly #turns: TaskQueue
  /** Right answers, by `#digest`, with the time until which they count; the oldest first. */
  readonly #remembered = new Map<string, number>()
  readonly #key = randomBytes(32)
  /** Those who were let in, with the hash that they were. */
  readonly #known = new Map<string, { readonly hash: string; readonly revocable: Revocable }>()

  constructor({ users, now = () => performance.now(), concurrent = hashesAtOnce() }: PasswordsOptions) {
    this.#users = users
    this.#now = now
    this.#turns = new TaskQueue({ ...waiting, concurrent })
  }

  /** Who it is, where this password was right a short time ago. */
  recall(user: string, password: string): Identity | undefined {
    const hash = this.#users().get(user)
    return hash !== undefined && this.#remembers(this.#digest(user, password, hash))
      ? this.#know(user, hash)
      : undefined
  }

  /**
   * Checks one password. How many wrong ones an address may have is for `WrongPasswords` to say.
   *
   * @throws {Ending} `too-many-attempts` where too many wait
   */
  async verify(user: string, password: string, address: string): Promise<PasswordVerdict> {
    const hash = this.#users().get(user)
    const same = await this.#compare(password, hash ?? this.#decoy(), address)
    if (hash === undefined) return 'unknown-user'
    // It may have become another one meanwhile.
    if (!same || this.#users().get(user) !== hash) return 'wrong'
    this.#remember(this.#digest(user, password, hash))
    return this.#know(user, hash)
  }

  /** Call when the users have changed: whoever was let in with what is no longer their password is told. */
  usersChanged(): void {
    const users = this.#users()
    for (const [user, { hash, revocable }] of this.#known) {
      if (users.get(user) === hash) continue
      this.#known.delete(user)
      revocable.revoke()
    }
  }

  async #compare(password: string, hash: string, address: string): Promise<boolean> {
    try {
      return await this.#turns.run(networkOf(address), () => compare(password, hash))
    } catch (error) {
      throw error instanceof QueueFullError ? new GatewayError('too-many-attempts', { cause: error }) : error
    }
  }

  #know(user: string, hash: string): Identity {
    const before = this.#known.get(user)
    const known = before?.hash === hash ? before : { hash, revocable: new Revocable() }
    this.#known.set(user, known)
    return knownAs(user, 'password', { revocation: known.revocable })
  }

  /** A hash that no password has, of the cost that the users' hashes have. */
  #decoy(): string {
    let cost = 0
    for (const hash of this.#users().values()) cost = Math.max(cost, costOf(hash) ?? 0)
    return `$2b$${String(cost || defaultCost).padStart(2, '0')}$${'.'.repeat(53)}`
  }

  /** With a key of this process, so that what is remembered tells nobody a password; a new hash makes it void. */
  #digest(user: string, password: string, hash: string): string {
    return createHmac('sha256', this.#key)
      .update(JSON.stringify([user, hash, password]))
      .digest('base64')
  }

  #remembers(digest: string): boolean {
    return (this.#remembered.get(digest) ?? 0) > this.#now()
  }

  #remember(digest: string): void {
    const now = this.#now()
    for (const [known, until] of this.#remembered) {
      if (until > now && this.#remembered.size < maxRemembered) break
      this.#remembered.delete(known)
    }
    this.#remembered.delete(digest)
    this.#remembered.set(digest, now + rememberFor)
  }
}

/** libuv has four threads unless it is told otherwise; files and host names need one. */
function hashesAtOnce(): number {
  return Math.min(3, Math.max(1, availableParallelism() - 1))
}

/** A password that nobody can have is compared all the same: it is to take as long. */
async function compare(password: string, hash: string): Promise<boolean> {
  const possible = passwordProblem(password) === undefined
  // `$2y$` is what Apache calls `$2b$`.
  const same = await bcrypt.compare(possible ? password : '', hash.replace(/^\$2y/, '$2b'))
  return same && possible
}
