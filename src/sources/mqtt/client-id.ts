import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { StartError } from '../../base/start-error.js'
import { RememberedSubscriptions } from '../remembered-subscriptions.js'

/** The client id of a gateway's session, and what is left of an earlier one. */
export interface SessionClientId {
  readonly clientId: string
  /** The client id of an earlier version, under which the broker may keep a session with messages. */
  readonly former?: string | undefined
  /** Call when nothing is kept under the former one any more. */
  forgetFormer(): Promise<void>
}

const form = z.object({ clientId: z.string().min(1), former: z.string().min(1).optional() })

/** Makes a client id that nobody can guess (80 random bits), with the machine's name in it for people. */
export function randomClientId(): string {
  // Brokers may insist on letters and digits alone, and MQTT 5 ones on no more than 65,535 bytes [MQTT-3.1.3-5].
  const host = hostname()
    .replaceAll(/[^0-9a-zA-Z-]/g, '')
    .slice(0, 32)
  return `mqway-${host}-${randomBytes(10).toString('hex')}`
}

/**
 * Reads the client id that belongs to a data directory, or makes it: the session is found again after a restart. It is kept in
 * `push-client-id.json`, which only its owner may read.
 *
 * @param data `undefined` where nothing is kept: another client id for each start
 * @throws {StartError} when it cannot be written
 */
export async function openClientId(data: string | undefined): Promise<SessionClientId> {
  if (data === undefined) return { clientId: randomClientId(), forgetFormer: async () => {} }
  const file = join(data, 'push-client-id.json')
  const stored = (await read(file)) ?? (await create(data, file))
  return { ...stored, forgetFormer: () => write(file, { clientId: stored.clientId }) }
}

async function read(file: string): Promise<z.output<typeof form> | undefined> {
  try {
    return form.parse(JSON.parse(await readFile(file, 'utf8')))
  } catch {
    // None yet, or damaged: with a new one, subscribers are told that events may be missing.
    return undefined
  }
}

async function create(data: string, file: string): Promise<z.output<typeof form>> {
  const last = await new RememberedSubscriptions(data).load()
  const former = last && isPredictable(last.clientId, data) ? last.clientId : undefined
  const made = { clientId: randomClientId(), former }
  try {
    await mkdir(data, { recursive: true, mode: 0o700 })
    await write(file, made)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new StartError(`the client id of push cannot be kept in ${file}: ${reason}`, { cause })
  }
  return made
}

/** Whether an earlier version made it, of the machine's name and the directory's. */
function isPredictable(clientId: string, data: string): boolean {
  return clientId.startsWith('mqway-') && clientId.endsWith(`-${predictableSuffix(data)}`)
}

function predictableSuffix(data: string): string {
  return createHash('sha256').update(data).digest('hex').slice(0, 10)
}

/** Durable before it returns: with a lost one, the broker would keep a session that nobody comes back to. */
async function write(file: string, content: z.output<typeof form>): Promise<void> {
  const handle = await open(`${file}.new`, 'w', 0o600)
  try {
    await handle.writeFile(JSON.stringify(content))
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(`${file}.new`, file)
}
