import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openDatabase } from '../../src/storage/open-level.js'

/** A stored data directory: the keys and values of each database, one character for each byte. */
interface StoredData {
  readonly databases: Readonly<Record<string, readonly (readonly [key: string, value: string])[]>>
  readonly htpasswd: string
}

/** The journal's key of the machine start in which it was written: after another one, it begins a new epoch. */
const bootKey = 'o'

/**
 * Writes the data directory of a fixture, with the password file `htpasswd` in it.
 *
 * @param directory an empty one
 */
export async function writeStoredData(directory: string, fixture: URL): Promise<void> {
  const { databases, htpasswd }: StoredData = JSON.parse(await readFile(fixture, 'utf8'))
  await writeFile(join(directory, 'htpasswd'), htpasswd)
  for (const [name, rows] of Object.entries(databases)) {
    const encoding = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
    const database = await openDatabase<Buffer, Buffer>(join(directory, name), encoding)
    await database.batch(
      rows.map(([key, value]) => ({
        type: 'put',
        key: Buffer.from(key, 'latin1'),
        value: Buffer.from(value, 'latin1'),
      })),
    )
    if (name === 'journal') {
      const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8')
      await database.put(Buffer.from(bootKey), Buffer.from(boot.trim()))
    }
    await database.close()
  }
}
