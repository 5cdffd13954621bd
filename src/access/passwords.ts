import { createHmac, randomBytes } from 'node:crypto'
import { availableParallelism } from 'node:os'
import bcrypt from 'bcrypt'
import { Ending } from '../endings.js'
import { costOf, defaultCost, passwordProblem, type Users } from './htpasswd.js'
import { networkOf } from './limits.js'
import type { Clock } from './rate-limits.js'
import { NoTurnError, Turns } from './turns.js'
import { WrongPasswords } from './wrong-passwords.js'

/** What was found out about a user and a password. */
export type PasswordVerdict = 'right' | 'wrong' | 'unknown-user'

export interface PasswordsOptions {
  /** The users as they are now. */
  readonly users: () => Users
  readonly now?: Clock
  /** How many hashes are computed at once. Default: one core is left to the event loop, and one thread to files. */
  readonly concurrent?: number
}

/** Hashes that wait to be computed, in all and for one address. */
const waiting = { waiting: 1000, waitingPerKey: 100 }

/** For so long, in milliseconds, a right password need not be hashed again: long-polling sends it with each request. */
const rememberFor = 60_000
const maxRemembered = 10_000

/**
 * Checks passwords, in libuv's threads and never in the event loop's.
 *
 * A user who is not in the file costs as much time as a wrong password. An address (IPv6: a /64) with ten wrong passwords
 * is refused before anything is computed, and gets one more try every ten seconds; one that floods the queue makes the
 * others wait for one of its hashes and not for all.
 */
export class Passwords {
  /** Those that were wrong, by address; also for whoever else judges passwords. */
  readonly wrong: WrongPasswords
  readonly #users: () => Users
  readonly #now: Clock
  readonly #turns: Turns
  /** Right answers, by `#digest`, with the time until which they count; the oldest first. */
  readonly #remembered = new Map<string, number>()
  readonly #key = randomBytes(32)

  constructor({ users, now = () => performance.now(), concurrent = hashesAtOnce() }: PasswordsOptions) {
    this.#users = users
    this.#now = now
    this.wrong = new WrongPasswords(now)
    this.#turns = new Turns({ ...waiting, concurrent })
  }

  /**
   * Checks one password. A wrong one counts against the address; a user who is not known only with `wrong.count`, as
   * somebody else may know them.
   *
   * @throws {Ending} `too-many-attempts`, with the seconds after which trying again makes sense
   */
  async verify(user: string, password: string, address: string): Promise<PasswordVerdict> {
    const hash = this.#users().get(user)
    const digest = this.#digest(user, password, hash)
    if (hash !== undefined && this.#remembers(digest)) return 'right'

    this.wrong.refuseFlood(address)
    try {
      return await this.#turns.run(networkOf(address), async () => {
        // Those before it in the queue may have been wrong.
        this.wrong.refuseFlood(address)
        const same = await compare(password, hash ?? this.#decoy())
        if (same && hash !== undefined) {
          this.#remember(digest)
          return 'right'
        }
        if (hash === undefined) return 'unknown-user'
        this.wrong.count(address)
        return 'wrong'
      })
    } catch (error) {
      throw error instanceof NoTurnError ? new Ending('too-many-attempts', { cause: error }) : error
    }
  }

  /** A hash that no password has, of the cost that the users' hashes have. */
  #decoy(): string {
    let cost = 0
    for (const hash of this.#users().values()) cost = Math.max(cost, costOf(hash) ?? 0)
    return `$2b$${String(cost || defaultCost).padStart(2, '0')}$${'.'.repeat(53)}`
  }

  /** With a key of this process, so that what is remembered tells nobody a password; a new hash makes it void. */
  #digest(user: string, password: string, hash = ''): string {
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
