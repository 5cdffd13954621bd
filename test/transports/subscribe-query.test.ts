import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { subscribeFields } from '../../src/transports/subscribe-query.js'

const schema = z.object(subscribeFields)

/** The message of the first thing that is wrong, after where it is. */
function problem(query: object): string | undefined {
  const issue = schema.safeParse(query).error?.issues[0]
  return issue && `${issue.path.join('.')} ${issue.message}`
}

describe('the query of a subscription', () => {
  it('takes one topic or several', () => {
    expect(schema.parse({ topic: 'a/+' }).topic).toEqual(['a/+'])
    expect(schema.parse({ topic: ['a/+', '#'] }).topic).toEqual(['a/+', '#'])
  })

  it('has defaults for what is left out', () => {
    expect(schema.parse({ topic: '#' })).toEqual({ topic: ['#'], json: false })
  })

  it('ignores what it does not know', () => {
    expect(schema.parse({ topic: '#', utm_source: 'x' })).not.toHaveProperty('utm_source')
  })

  it.each([
    [{}, /^topic /],
    [{ topic: '' }, /^topic must not be empty/],
    [{ topic: ['a', 'b#'] }, /^topic must have # alone/],
    [{ topic: 'news/ /sport' }, /^topic must not have a level that is one space: \+ is %2B in a URL/],
    [{ topic: ['a', ' '] }, /%2B/],
    [{ topic: 'a\0b' }, /^topic must not hold U\+0000/],
    [{ topic: 'a/'.repeat(100) }, /^topic must have at most 100 levels/],
    [{ topic: Array.from({ length: 101 }, (_, index) => `t${index}`) }, /^topic must come at most 100 times/],
    [{ topic: '#', last: '-1' }, /^last must be a whole number from 0 to 10000/],
    [{ topic: '#', last: '10001' }, /^last must be a whole number/],
    [{ topic: '#', last: '1e3' }, /^last must be a whole number/],
    [{ topic: '#', last: ['1', '2'] }, /^last must be a whole number/],
    [{ topic: '#', json: 'yes' }, /^json must be true or false/],
    [{ topic: '#', device: '' }, /^device must have 1 to 255 bytes/],
    [{ topic: '#', device: 'a\nb' }, /^device must have 1 to 255 bytes/],
  ])('says what is wrong with %j', (query, message) => {
    expect(problem(query)).toMatch(message)
  })

  it('takes any text for a cursor, cut to what could be one; an empty one is none', () => {
    expect(schema.parse({ topic: '#', cursor: '' }).cursor).toBeUndefined()
    expect(schema.parse({ topic: '#', cursor: ['a', 'b'] }).cursor).toBe('b')
    expect(schema.parse({ topic: '#', cursor: 'x'.repeat(5000) }).cursor).toHaveLength(64)
  })

  it('describes itself as JSON Schema', () => {
    const described = z.toJSONSchema(schema, { io: 'input' })
    expect(described.properties).toMatchObject({
      topic: { type: 'array', maxItems: 100 },
      last: { type: 'integer', minimum: 0, maximum: 10_000 },
      json: { type: 'string', enum: ['true', 'false'], default: 'false' },
    })
    expect(described.required).toEqual(['topic'])
  })
})
