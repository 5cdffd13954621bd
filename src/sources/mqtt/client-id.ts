import { randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { StartError } from '../../base/start-error.js'

const schema = z.object({ clientId: z.string().min(1) })

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
export async function openClientId(data: string | undefined): Promise<string> {
  if (data === undefined) return randomClientId()
  const file = join(data, 'push-client-id.json')
  return (await read(file)) ?? create(data, file)
}

async function read(file: string): Promise<string | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(file, 'utf8'))).clientId
  } catch {
    // Missing or damaged: with a new one, subscribers get a gap marker.
    return undefined
  }
}

async function create(data: string, file: string): Promise<string> {
  const clientId = randomClientId()
  try {
    await mkdir(data, { recursive: true, mode: 0o700 })
    await write(file, { clientId })
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new StartError(`the client id of push cannot be written to ${file}: ${reason}`, { cause })
  }
  return clientId
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
