import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type LevelBase, openLevel } from '../../src/broker/level-store.js'
import { topicRanges } from '../../src/broker/retained-ranges.js'
import { FilterIndex } from '../../src/topics/filter-index.js'

const word = fc.constantFrom('', 'a', 'b', 'a!', 'a0', '0', 'ü', '\u{1f600}', '\uffee')
const topic = fc.array(word, { minLength: 1, maxLength: 4 }).map(words => words.join('/'))
const filter = fc
  .tuple(fc.array(fc.oneof(word, fc.constant('+')), { maxLength: 3 }), fc.oneof(word, fc.constantFrom('+', '#')))
  .map(([words, last]) => [...words, last].join('/'))

/** In the order of UTF-8. */
const sortsFirst = (a: string, b: string): boolean => Buffer.compare(Buffer.from(a), Buffer.from(b)) < 0

describe('topic ranges', () => {
  it('have every topic that one of the filters matches, in one range only', () => {
    fc.assert(
      fc.property(fc.array(filter, { minLength: 1, maxLength: 5 }), topic, (filters, name) => {
        const index = new FilterIndex<true>()
        for (const each of filters) index.add(each, true)
        const within = topicRanges(filters).filter(
          ([from, to]) => !sortsFirst(name, from) && (to === undefined || sortsFirst(name, to)),
        )
        expect(within.length).toBeLessThanOrEqual(1)
        if (index.match(name).length > 0) expect(within).toHaveLength(1)
      }),
      { numRuns: 2000 },
    )
  })
})

describe('retained messages on disk', () => {
  let data: string
  let base: LevelBase
  beforeEach(async () => {
    data = await mkdtemp(join(tmpdir(), 'mqway-'))
    base = await openLevel(data)
    for (const topic of ['a', 'a!', 'a/1', 'a/1/x', 'a/2', 'a/ü', 'ab', 'b/1', '$x/1']) {
      await base.persistence.storeRetained({
        cmd: 'publish',
        topic,
        payload: Buffer.from(topic),
        qos: 1,
        retain: true,
        dup: false,
        brokerId: 'broker',
        brokerCounter: 1,
      })
    }
  })
  afterEach(async () => {
    await base.close()
    await rm(data, { recursive: true })
  })

  it.each([
    [['a/1'], ['a/1']],
    [
      ['a/1', 'a/2', 'a/1'],
      ['a/1', 'a/2'],
    ],
    [['none'], []],
    [['a/+'], ['a/1', 'a/1/x', 'a/2', 'a/ü']],
    [['a/#'], ['a', 'a!', 'a/1', 'a/1/x', 'a/2', 'a/ü']],
    [
      ['a/1/#', 'a/#', 'b/1'],
      ['a', 'a!', 'a/1', 'a/1/x', 'a/2', 'a/ü', 'b/1'],
    ],
    [['#'], ['$x/1', 'a', 'a!', 'a/1', 'a/1/x', 'a/2', 'a/ü', 'ab', 'b/1']],
  ])('are read for %j only where they may match', async (filters, expected) => {
    const topics: string[] = []
    for await (const { topic } of base.readRetained(filters)) topics.push(topic)
    expect(topics).toEqual(expected)
  })
})
