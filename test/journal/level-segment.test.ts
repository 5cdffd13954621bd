import { describe, expect, it } from 'vitest'
import { readTopics, Segment, SegmentScan, segmentLength, TopicDictionary } from '../../src/journal/level-segment.js'
import { topicPredicate } from '../../src/topics/match.js'

/** Takes all steps, and tells how many those were, and what came of them. */
function walk<T>(steps: Generator<void, T, void>): { readonly count: number; readonly result: T } {
  for (let count = 0; ; count++) {
    const { value, done } = steps.next()
    if (done === true) return { count, result: value }
  }
}

describe('the search in a segment', () => {
  const filled = (topicOf: (place: number) => string): Segment => {
    const segment = new Segment()
    for (let place = 0; place < segmentLength; place++) segment.push(topicOf(place), 1, 0, place + 1)
    return segment
  }
  const filters = Array.from({ length: 1000 }, (_, index) => `+/x/${index}`)
  const wanted = Array.from({ length: 1000 }, (_, index) => index)

  it('is divided where the topics are many, so that others have a turn', () => {
    const segment = filled(place => `a/x/${place}`)
    const scan = new SegmentScan(topicPredicate(filters))
    const record = readTopics(new TopicDictionary().encode(segment, 0), segmentLength)
    expect(walk(scan.addTopics(record, segmentLength)).count).toBeGreaterThan(7)
    expect(scan.indexes(record)).toEqual(wanted)
    const newest = walk(scan.indexesOf(segment))
    expect(newest.count).toBeGreaterThan(6)
    expect(newest.result).toEqual(wanted)
  })

  it('finds what is in the newest segment when it begins, whatever comes meanwhile', () => {
    const segment = new Segment()
    for (let place = 0; place < 500; place++) segment.push(`a/x/${place}`, 1, 0, place + 1)
    const steps = new SegmentScan(topicPredicate(filters)).indexesOf(segment)
    steps.next()
    segment.push('a/x/0', 1, 0, 501)
    expect(walk(steps).result).toEqual(wanted.slice(0, 500))
  })
})
