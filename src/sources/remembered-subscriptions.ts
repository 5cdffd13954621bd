import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'

/** Subscriptions of a session with a broker. */
export interface Subscriptions {
  readonly clientId: string
  /** Name of the protocol profile, on which the meaning of RETAIN depends. */
  readonly dialect: string
  readonly topics: readonly string[]
}

const schema = z.object({ clientId: z.string(), dialect: z.string(), topics: z.array(z.string()) })

/** `undefined` for anything else: subscribing again does no harm. */
export function parseSubscriptions(text: string): Subscriptions | undefined {
  try {
    return schema.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}

/**
 * The last subscriptions of the session, in `push-session.json`: the broker reports an existing session without its subscriptions, which may
 * differ from the configuration.
 */
export class RememberedSubscriptions {
  readonly #file: string | undefined
  #last: Subscriptions | undefined
  #writing: Promise<void> = Promise.resolve()

  /** @param directory `undefined` for memory only */
  constructor(directory: string | undefined) {
    this.#file = directory === undefined ? undefined : join(directory, 'push-session.json')
  }

  async load(): Promise<Subscriptions | undefined> {
    if (this.#last || this.#file === undefined) return this.#last
    this.#last = parseSubscriptions(await readFile(this.#file, 'utf8').catch(() => ''))
    return this.#last
  }

  async save(subscriptions: Subscriptions): Promise<void> {
    this.#last = subscriptions
    await this.#inOrder(async file => {
      // The client id is enough to end the session.
      await writeFile(`${file}.new`, JSON.stringify(subscriptions), { mode: 0o600 })
      await rename(`${file}.new`, file)
    })
  }

  /** Deletes the file, which works on a full disk, too. */
  async forget(): Promise<void> {
    this.#last = undefined
    await this.#inOrder(file => rm(file, { force: true }))
  }

  #inOrder(write: (file: string) => Promise<void>): Promise<void> {
    const file = this.#file
    if (file === undefined) return Promise.resolve()
    const current = this.#writing.then(() => write(file))
    this.#writing = current.catch(() => {})
    return current
  }
}
