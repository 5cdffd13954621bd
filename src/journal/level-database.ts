import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import type { Logger } from '../base/log.js'
import { DamagedRecord, openDatabase, openOrReplace } from '../storage/open-level.js'
import { newEpoch } from './event.js'
import { type JournalBounds, sizeOf } from './journal.js'
import {
  type Database,
  decodeEvent,
  decodeRetainedEntry,
  decodeState,
  emptyShare,
  encodeState,
  type JournalState,
  maxSequence,
  openedKey,
  readSequence,
  readTopicKey,
  sequenceKey,
  sharesKey,
  stateKey,
} from './level-records.js'
import { Segment } from './level-segment.js'
import { RetainedMessages } from './retained-messages.js'
import { Shares, type ShareTopics } from './shares.js'

/** An opened database and its state. */
export interface OpenedDatabase {
  readonly database: Database
  readonly state: JournalState
  readonly shares: Shares
  /** The incomplete segments, by share. */
  readonly tails: readonly Segment[]
  readonly retained: RetainedMessages
}

export interface OpenOptions {
  /** Directory of the database; it is created if it does not exist. */
  readonly directory: string
  readonly bounds: JournalBounds
  readonly log: Logger
  readonly clock: () => number
}

/**
 * Opens, or creates, the database of a journal. A damaged one is moved aside and replaced by an empty one.
 *
 * @throws {StartError} if another process has it open, or it cannot be opened
 */
export function openJournalDatabase(options: OpenOptions): Promise<OpenedDatabase> {
  return openOrReplace({ ...options, holds: 'the journal' }, () => load(options))
}

/** Opens and reads a database; rejects if it is damaged. */
export async function load(options: OpenOptions): Promise<OpenedDatabase> {
  const encodings = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
  const database: Database = await openDatabase(options.directory, encodings)
  try {
    const state = await openState(database, options)
    const shares = await openShares(database, options, state)
    const tails: Segment[] = []
    for (let share = 0; share < shares.count; share++) {
      tails.push(await readTail(database, state, share))
      // Payloads written before a batch that was not written.
      await database.clear({ gt: sequenceKey('p', share, state.head), lte: sequenceKey('p', share, maxSequence) })
    }
    return { database, state, shares, tails, retained: await readRetained(database, options) }
  } catch (error) {
    await database.close()
    throw error
  }
}

/** Reads the state, and marks the database as open. */
async function openState(database: Database, { clock, log, directory }: OpenOptions): Promise<JournalState> {
  const boot = await bootId()
  let state = await readState(database, clock())
  const opened = await database.get(openedKey)
  if (opened && !(isClean(opened) || (boot !== undefined && opened.toString() === boot))) {
    // The last writes may be lost, and their ids would be reused for other events.
    log.warn(`the machine stopped with the journal in ${directory} open: returning subscribers get a gap`)
    state = { ...state, epoch: newEpoch(clock()) }
  }
  const marks = [
    { type: 'put', key: stateKey, value: encodeState(state) },
    { type: 'put', key: openedKey, value: Buffer.from(boot ?? 'unknown') },
  ] as const
  await database.batch([...marks], { sync: true })
  return state
}

const clean = 'closed'

function isClean(opened: Buffer): boolean {
  return opened.toString() === clean
}

/** Closes a database and marks it as complete. */
export async function closeDatabase(database: Database): Promise<void> {
  await database.batch([{ type: 'put', key: openedKey, value: Buffer.from(clean) }], { sync: true })
  await database.close()
}

async function readState(database: Database, now: number): Promise<JournalState> {
  const record = await database.get(stateKey)
  if (record) return decodeState(record)
  if ((await database.keys({ limit: 1 }).all()).length > 0) throw new DamagedRecord('there is no state')
  return { epoch: newEpoch(now), head: 0, shares: [emptyShare] }
}

/** Linux's boot id, which changes with each start of the machine; `undefined` on other systems. */
async function bootId(): Promise<string | undefined> {
  return readFile('/proc/sys/kernel/random/boot_id', 'utf8').then(
    text => text.trim(),
    () => undefined,
  )
}

const storedShares = z.array(z.strictObject({ filters: z.array(z.string()), since: z.number() }))

/** Reads the stored shares, and adds those of new rules. */
async function openShares(database: Database, { bounds }: OpenOptions, { head }: JournalState): Promise<Shares> {
  const record = await database.get(sharesKey)
  const shares = new Shares(bounds, record ? decodeShares(record) : [], head)
  if (shares.topics.length > 0) await database.put(sharesKey, Buffer.from(JSON.stringify(shares.topics)))
  return shares
}

/** @throws {DamagedRecord} */
function decodeShares(record: Buffer): ShareTopics[] {
  try {
    return storedShares.parse(JSON.parse(record.toString()))
  } catch {
    throw new DamagedRecord('not the topics of shares')
  }
}

/** Reads the incomplete segment of a share, where damage is most likely. */
async function readTail(database: Database, { epoch, head, shares }: JournalState, share: number): Promise<Segment> {
  const segment = new Segment()
  const { evicted, sealed, tail } = shares[share] ?? emptyShare
  const range = {
    gte: sequenceKey('e', share, Math.max(evicted, sealed) + 1),
    lte: sequenceKey('e', share, head),
    ...(tail === 0 && { limit: 0 }),
  }
  for await (const [key, value] of database.iterator(range)) {
    const { event, large } = decodeEvent(epoch, value, false)
    if (readSequence(key) !== event.sequence) throw new DamagedRecord('events are missing')
    segment.push(event.topic, sizeOf(event) + (large ?? 0), event.time, event.sequence)
  }
  if (segment.length !== tail) throw new DamagedRecord('events are missing')
  return segment
}

async function readRetained(database: Database, { bounds, log }: OpenOptions): Promise<RetainedMessages> {
  const retained = new RetainedMessages(bounds, log)
  for await (const [key, value] of database.iterator({ gte: Buffer.from('n'), lt: Buffer.from('o') })) {
    retained.load(readTopicKey(key), decodeRetainedEntry(value))
  }
  return retained
}
