import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { StartError } from '../../base/start-error.js'
import { RememberedSubscriptions } from '../remembered-subscriptions.js'

/** The client id of a gateway's session, and that of an earlier version. */
export interface SessionClientId {
  readonly clientId: string
  /** The client id of an earlier version, under which the broker may have a session with messages. */
  readonly former?: string | undefined
  /** Call when the broker has deleted the former session. */
  forgetFormer(): Promise<void>
}

const schema = z.object({ clientId: z.string().min(1), former: z.string().min(1).optional() })

/** A client id that cannot be guessed (80 random bits), with the host name for operators. */
export function randomClientId(): string {
  // Brokers may accept letters and digits only [MQTT-3.1.3-5].
  const host = hostname()
    .replaceAll(/[^0-9a-zA-Z-]/g, '')
    .slice(0, 32)
  return `mqway-${host}-${randomBytes(10).toString('hex')}`
}

/**
 * Reads or creates the client id of a data directory, by which the session is resumed after a restart. Its file `push-client-id.json` is
 * readable by its owner only.
 *
 * @param data `undefined` for a new client id at each start
 * @throws {StartError} when it cannot be written
 */
export async function openClientId(data: string | undefined): Promise<SessionClientId> {
  if (data === undefined) return { clientId: randomClientId(), forgetFormer: async () => {} }
  const file = join(data, 'push-client-id.json')
  const stored = (await read(file)) ?? (await create(data, file))
  return { ...stored, forgetFormer: () => write(file, { clientId: stored.clientId }) }
}

async function read(file: string): Promise<z.output<typeof schema> | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(file, 'utf8')))
  } catch {
    // Missing or damaged: with a new one, subscribers get a gap marker.
    return undefined
  }
}

async function create(data: string, file: string): Promise<z.output<typeof schema>> {
  const last = await new RememberedSubscriptions(data).load()
  const former = last && isPredictable(last.clientId, data) ? last.clientId : undefined
  const made = { clientId: randomClientId(), former }
  try {
    await mkdir(data, { recursive: true, mode: 0o700 })
    await write(file, made)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new StartError(`the client id of push cannot be written to ${file}: ${reason}`, { cause })
  }
  return made
}

/** Whether an earlier version made it from the host name and the directory. */
function isPredictable(clientId: string, data: string): boolean {
  return clientId.startsWith('mqway-') && clientId.endsWith(`-${predictableSuffix(data)}`)
}

function predictableSuffix(data: string): string {
  return createHash('sha256').update(data).digest('hex').slice(0, 10)
}

/** Durable before it resolves: with a lost client id, the broker would keep an abandoned session. */
async function write(file: string, content: z.output<typeof schema>): Promise<void> {
  const handle = await open(`${file}.new`, 'w', 0o600)
  try {
    await handle.writeFile(JSON.stringify(content))
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(`${file}.new`, file)
}
