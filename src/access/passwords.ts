import { createHash, createHmac, randomBytes } from 'node:crypto'
import { availableParallelism } from 'node:os'
import bcrypt from 'bcrypt'
import { GatewayError } from '../base/errors.js'
import { type Identity, identityOf, type Revocation } from '../base/identity.js'
import { QueueFullError, TaskQueue } from '../base/task-queue.js'
import { costOf, defaultCost, passwordProblem, type Users } from './htpasswd.js'
import { networkOf } from './limits.js'

/** The result of a password check. */
export type PasswordResult = Identity | 'wrong' | 'unknown-user'

export interface PasswordsOptions {
  /** Returns the current users. */
  readonly users: () => Users
  readonly now?: () => number
  /** Hashes computed at once. Default: leaves one core to the event loop, and one thread to files. */
  readonly concurrent?: number
}

/** Queued hashes, in all and for one address, of which `FailedLoginLimiter` passes ten. */
const queueBounds = { waiting: 1000, waitingPerKey: 100 }

/** How long a right password need not be hashed again, in milliseconds: long-polling sends it with each request. */
const cacheTime = 60_000
const maxCached = 10_000

/**
 * Checks passwords in libuv's threads, not in the event loop.
 *
 * An unknown user takes as long as a wrong password. The queue is fair: an address (IPv6: a /64) that floods it delays others by one hash.
 * An identity is revoked when its user's password changes.
 */
export class Passwords {
  readonly #users: () => Users
  readonly #now: () => number
  readonly #queue: TaskQueue
  /** Expiry times of right passwords, by `#digest`; oldest first. */
  readonly #cache = new Map<string, number>()
  readonly #key = randomBytes(32)
  /** Authenticated users, with their hash at that time. */
  readonly #authenticated = new Map<string, { readonly hash: string; readonly revocation: Revocable }>()

  constructor({ users, now = () => performance.now(), concurrent = defaultConcurrency() }: PasswordsOptions) {
    this.#users = users
    this.#now = now
    this.#queue = new TaskQueue({ ...queueBounds, concurrent })
  }

  /** Returns the identity if this password was right a short time ago. */
  cached(user: string, password: string): Identity | undefined {
    const hash = this.#users().get(user)
    return hash !== undefined && this.#isCached(this.#digest(user, password, hash))
      ? this.#identity(user, hash)
      : undefined
  }

  /**
   * Checks a password. `FailedLoginLimiter` limits the wrong ones.
   *
   * @throws {GatewayError} `too-many-attempts` if the queue is full
   */
  async verify(user: string, password: string, address: string): Promise<PasswordResult> {
    const hash = this.#users().get(user)
    const same = await this.#compare(password, hash ?? this.#dummyHash(), address)
    if (hash === undefined) return 'unknown-user'
    // The password may have changed meanwhile.
    if (!same || this.#users().get(user) !== hash) return 'wrong'
    this.#addToCache(this.#digest(user, password, hash))
    return this.#identity(user, hash)
  }

  /** The revocation of a user's password; `undefined` if it is not the one that `credential` names. */
  revocationOf(user: string, credential: string): Revocation | undefined {
    const hash = this.#users().get(user)
    return hash !== undefined && credentialOf(hash) === credential ? this.#identity(user, hash).revocation : undefined
  }

  /** Call when the users have changed: revokes identities whose password has changed. */
  usersChanged(): void {
    const users = this.#users()
    for (const [user, { hash, revocation }] of this.#authenticated) {
      if (users.get(user) === hash) continue
      this.#authenticated.delete(user)
      revocation.revoke()
    }
  }

  async #compare(password: string, hash: string, address: string): Promise<boolean> {
    try {
      return await this.#queue.run(networkOf(address), () => compare(password, hash))
    } catch (error) {
      throw error instanceof QueueFullError ? new GatewayError('too-many-attempts', { cause: error }) : error
    }
  }

  #identity(user: string, hash: string): Identity {
    const before = this.#authenticated.get(user)
    const known = before?.hash === hash ? before : { hash, revocation: new Revocable(credentialOf(hash)) }
    this.#authenticated.set(user, known)
    return identityOf(user, 'password', { revocation: known.revocation })
  }

  /** A hash that no password has, with the cost of the users' hashes. */
  #dummyHash(): string {
    let cost = 0
    for (const hash of this.#users().values()) cost = Math.max(cost, costOf(hash) ?? 0)
    return `$2b$${String(cost || defaultCost).padStart(2, '0')}$${'.'.repeat(53)}`
  }

  /** With a random key, so that the cache reveals no password; a new hash invalidates it. */
  #digest(user: string, password: string, hash: string): string {
    return createHmac('sha256', this.#key)
      .update(JSON.stringify([user, hash, password]))
      .digest('base64')
  }

  #isCached(digest: string): boolean {
    return (this.#cache.get(digest) ?? 0) > this.#now()
  }

  #addToCache(digest: string): void {
    const now = this.#now()
    for (const [known, until] of this.#cache) {
      if (until > now && this.#cache.size < maxCached) break
      this.#cache.delete(known)
    }
    this.#cache.delete(digest)
    this.#cache.set(digest, now + cacheTime)
  }
}

/** Names a password by its salted hash, without revealing that. */
function credentialOf(hash: string): string {
  return createHash('sha256').update(hash).digest('base64url')
}

/** libuv has four threads by default; files and host names need one. */
function defaultConcurrency(): number {
  return Math.min(3, Math.max(1, availableParallelism() - 1))
}

/** Compares also an impossible password, so that it takes as long. */
async function compare(password: string, hash: string): Promise<boolean> {
  const possible = passwordProblem(password) === undefined
  // Apache writes `$2y$` for `$2b$`.
  const same = await bcrypt.compare(possible ? password : '', hash.replace(/^\$2y/, '$2b'))
  return same && possible
}

/** A revocation that `revoke` triggers once. */
class Revocable implements Revocation {
  readonly credential: string
  readonly #watchers = new Set<() => void>()
  #revoked = false

  constructor(credential: string) {
    this.credential = credential
  }

  get revoked(): boolean {
    return this.#revoked
  }

  watch(revoked: () => void): () => void {
    // The same function may watch several times.
    const watcher = (): void => revoked()
    this.#watchers.add(watcher)
    if (this.#revoked) setImmediate(() => this.#watchers.delete(watcher) && watcher())
    return () => void this.#watchers.delete(watcher)
  }

  revoke(): void {
    if (this.#revoked) return
    this.#revoked = true
    for (const watcher of this.#watchers) {
      this.#watchers.delete(watcher)
      watcher()
    }
  }
}
