import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Level } from 'level'
import { encode } from 'msgpack-lite'

/** Stored sessions of disconnected clients. */
export interface StoredSessions {
  readonly count: number
  /** Prefix of their client ids. */
  readonly prefix: string
  /** The topic filters of each, at QoS 1; `%c` is its client id. */
  readonly filters: readonly string[]
  /** As in the session's record: `<seen>@<network>:<owner>`, in earlier versions `<seen>` and `<seen>:<owner>`. */
  readonly record: string
}

/** Writes sessions into `<data>/broker`. */
export async function storeSessions(data: string, ...groups: readonly StoredSessions[]): Promise<void> {
  const directory = join(data, 'broker')
  await mkdir(directory, { recursive: true })
  const database = new Level<string, Buffer>(directory, { valueEncoding: 'buffer' })
  for (const { count, prefix, filters, record } of groups) {
    for (let from = 0; from < count; from += 100) {
      const ids = Array.from({ length: Math.min(100, count - from) }, (_, index) => `${prefix}-${from + index}`)
      const puts = ids.flatMap(clientId => [
        { type: 'put' as const, key: `mqway:session:${clientId}`, value: Buffer.from(record) },
        ...filters
          .map(filter => filter.replace('%c', clientId))
          .map(topic => ({
            type: 'put' as const,
            key: `subscriptions:${clientId}:${topic}`,
            value: encode({ topic, qos: 1, clientId }),
          })),
      ])
      await database.batch(puts)
    }
  }
  await database.close()
}
