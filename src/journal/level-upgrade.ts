import { DamagedRecord } from '../storage/open-level.js'
import type { Database } from './level-database.js'
import { encodeState, sequenceKey, stateKey } from './level-records.js'
import { encodeHeader, segmentLength } from './level-segment.js'

/*
 * Journals of versions without shares: one share, and segments of 1024 sequences whether their events were there or not,
 * by number from 0 on, their topics under `t` and their sizes under `m`.
 */

const oldStateLength = 15 + 3 * 8
/** Segments that are rewritten at a time. */
const segmentsAtOnce = 64

/**
 * Brings a journal of an older version into today's form; does nothing with any other. It may end anywhere, and be begun
 * again.
 *
 * @throws {DamagedRecord}
 */
export async function upgradeDatabase(database: Database): Promise<void> {
  const state = await database.get(stateKey)
  if (state?.length !== oldStateLength) return
  await rewriteSegments(database, 't', 'i')
  await rewriteSegments(database, 'm', 'l')
  await database.put(stateKey, upgradeState(state), { sync: true })
  for (const kind of ['t', 'm']) await database.clear({ gte: Buffer.from(kind), lt: afterKind(kind) })
}

async function rewriteSegments(database: Database, kind: 't' | 'm', newKind: 'i' | 'l'): Promise<void> {
  const iterator = database.iterator({ gte: Buffer.from(kind), lt: afterKind(kind) })
  try {
    for (;;) {
      const entries = await iterator.nextv(segmentsAtOnce)
      if (entries.length === 0) return
      const operations = entries.map(([key, record]) => {
        const number = Number(key.readBigUInt64BE(1))
        const start = number * segmentLength
        const run = (record.readDoubleLE(0) + 1) * segmentLength
        const value = Buffer.concat([encodeHeader(run, start, start + 1), record.subarray(8)])
        return { type: 'put', key: sequenceKey(newKind, 0, start + segmentLength), value } as const
      })
      await database.batch(operations)
    }
  } finally {
    await iterator.close()
  }
}

function upgradeState(record: Buffer): Buffer {
  const [first, head, bytes] = [record.readDoubleBE(15), record.readDoubleBE(23), record.readDoubleBE(31)]
  const whole = [first, head, bytes].every(Number.isSafeInteger)
  if (!whole || first < 1 || head < first - 1) throw new DamagedRecord('not a state')
  const evicted = first - 1
  const sealed = head - (head % segmentLength)
  const share = { evicted, size: head - evicted, bytes, sealed, tail: head - Math.max(evicted, sealed) }
  return encodeState({ epoch: record.toString('latin1', 0, 15), head, shares: [share] })
}

/** The end of the keys of a kind. */
function afterKind(kind: string): Buffer {
  return Buffer.from(String.fromCharCode(kind.charCodeAt(0) + 1))
}
