import { appendFile, mkdir, rename, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { codeOf } from '../../base/error-code.js'
import { Exclusive } from '../../base/exclusive.js'
import type { Logger } from '../../base/log.js'

/** Events that a webhook did not get. */
export interface DeadLetter {
  readonly rule: string
  readonly reason: 'given-up' | 'gone' | 'queue-full' | 'rule-removed'
  /** Of the call; left out for events that were in none. */
  readonly id?: string
  /** The last error. */
  readonly error?: string
  /** Each as JSON. */
  readonly events: readonly string[]
}

/** Bytes of a file before it is renamed. */
const maxBytes = 8 * 1024 ** 2

/**
 * The dead-letter log: a file of JSON lines, and the one before it. Together they have 16 MiB, or two larger lines. It stays closed between
 * lines, so that anybody may move it away.
 */
export class DeadLetters {
  readonly #file: string | undefined
  readonly #log: Logger
  readonly #writing = new Exclusive()
  #isFailing = false

  /** @param file `undefined` for none: lost events are only logged */
  constructor(file: string | undefined, log: Logger) {
    this.#file = file
    this.#log = log
  }

  /** Appends a line. Resolves in any case; failures are logged, the first of several in a row. */
  add({ events, ...about }: DeadLetter, now: number): Promise<void> {
    const file = this.#file
    if (file === undefined) return Promise.resolve()
    const members = JSON.stringify({ time: new Date(now).toISOString(), ...about }).slice(0, -1)
    return this.#writing.run(async () => {
      try {
        await append(file, `${members},"events":[${events.join(',')}]}\n`)
        this.#isFailing = false
      } catch (error) {
        if (!this.#isFailing) this.#log.error({ err: error, file }, 'Failed to write the dead-letter log')
        this.#isFailing = true
      }
    })
  }
}

async function append(file: string, line: string): Promise<void> {
  const size = await sizeOf(file)
  if (size === 0) await mkdir(dirname(file), { recursive: true })
  else if (size + Buffer.byteLength(line) > maxBytes) await rename(file, `${file}.1`)
  await appendFile(file, line, { mode: 0o600 })
}

async function sizeOf(file: string): Promise<number> {
  try {
    return (await stat(file)).size
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return 0
    throw error
  }
}
