import { DamagedRecord } from '../storage/open-level.js'
import { type Database, encodeState, sequenceKey, stateKey } from './level-records.js'
import { encodeHeader, segmentLength } from './level-segment.js'

/*
 * Journals of earlier versions have one share, and segments of 1024 sequences, numbered from 0, with topics under `t` and sizes under `m`.
 */

const oldStateLength = 15 + 3 * 8
/** Segments rewritten at a time. */
const segmentsAtOnce = 64

/**
 * Upgrades a journal of an earlier version; does nothing with any other. It may be interrupted and repeated.
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

/** End of the key range of a kind. */
function afterKind(kind: string): Buffer {
  return Buffer.from(String.fromCharCode(kind.charCodeAt(0) + 1))
}
