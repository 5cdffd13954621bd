import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { AedesPublishPacket } from 'aedes'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { type LevelBackend, openLevel } from '../../../src/broker/embedded/level-backend.js'
import { silentLog } from '../../helpers/silent-log.js'

let directory: string
let storage: LevelBackend
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mqway-'))
  storage = await openLevel(directory, silentLog)
})
afterEach(async () => {
  await storage.close()
  await rm(directory, { recursive: true })
})

const add = async (from: number, through: number): Promise<void> => {
  for (let number = from; number <= through; number++) {
    const packet = { cmd: 'publish', topic: `${number}`, payload: Buffer.alloc(100), qos: 1, retain: false, dup: false }
    const stored = { ...packet, brokerId: 'run-1', brokerCounter: number } as AedesPublishPacket
    await storage.queues.prepare(stored).add(['reader'])
  }
}

it('a queue on disk is read to its end, with what is added while its reader waits: nothing stays open meanwhile', async () => {
  await add(1, 130)
  const topics: string[] = []
  for await (const { topic } of storage.queues.read('reader', () => {})) {
    topics.push(topic)
    // An iterator that was opened before would not have them, and keep what is deleted on disk.
    if (topics.length === 100) await add(131, 300)
  }
  expect(topics).toEqual(Array.from({ length: 300 }, (_, index) => `${index + 1}`))
})

it('a message of a queue that is larger than a page is read alone, and those behind it, too', async () => {
  const large = { cmd: 'publish', topic: 'large', payload: Buffer.alloc(1_000_000), qos: 1, retain: false, dup: false }
  await storage.queues.prepare({ ...large, brokerId: 'run-1', brokerCounter: 1 } as AedesPublishPacket).add(['reader'])
  await add(2, 3)
  const topics: string[] = []
  for await (const { topic } of storage.queues.read('reader', () => {})) topics.push(topic)
  expect(topics).toEqual(['large', '2', '3'])
})
