import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'

/** What a session with a broker was subscribed to, and how. */
export interface Subscriptions {
  readonly clientId: string
  /** The dialect's name: RETAIN may come otherwise in another one. */
  readonly dialect: string
  readonly topics: readonly string[]
}

const form = z.object({ clientId: z.string(), dialect: z.string(), topics: z.array(z.string()) })

/**
 * What the session was subscribed to when it was last there: the broker tells that it has one, and not what is in it. It
 * may not be what the configuration says now.
 */
export class RememberedSubscriptions {
  readonly #file: string | undefined
  #last: Subscriptions | undefined
  /** Ends when what was to be written is. */
  #writing: Promise<void> = Promise.resolve()

  /** @param directory where it is kept over a restart; `undefined` for nowhere */
  constructor(directory: string | undefined) {
    this.#file = directory === undefined ? undefined : join(directory, 'push-session.json')
  }

  async load(): Promise<Subscriptions | undefined> {
    if (this.#last || this.#file === undefined) return this.#last
    try {
      this.#last = form.parse(JSON.parse(await readFile(this.#file, 'utf8')))
    } catch {
      // None yet, or unreadable: to subscribe anew does no harm.
    }
    return this.#last
  }

  async save(subscriptions: Subscriptions): Promise<void> {
    this.#last = subscriptions
    await this.#inTurn(async file => {
      // Whoever knows the client id can end the session.
      await writeFile(`${file}.new`, JSON.stringify(subscriptions), { mode: 0o600 })
      await rename(`${file}.new`, file)
    })
  }

  /** Which also works where the disk is full. */
  async forget(): Promise<void> {
    this.#last = undefined
    await this.#inTurn(file => rm(file, { force: true }))
  }

  #inTurn(write: (file: string) => Promise<void>): Promise<void> {
    const file = this.#file
    if (file === undefined) return Promise.resolve()
    const current = this.#writing.then(() => write(file))
    this.#writing = current.catch(() => {})
    return current
  }
}
