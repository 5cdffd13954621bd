import { once } from 'node:events'
import { get } from 'node:http'
import { text } from 'node:stream/consumers'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { readQuery } from '../../src/http/parameters.js'
import { QueryCache } from '../../src/http/query-cache.js'
import { serve } from './rig.js'

let reads = 0
const last = (value: unknown): unknown => {
  reads++
  return Array.isArray(value) ? value.at(-1) : value
}
const schema = z.object({
  topic: z.string(),
  limit: z.coerce.number().max(10).default(5),
  cursor: z.preprocess(last, z.string().optional()).transform(text => (text === '' ? undefined : text?.slice(0, 8))),
})

/** As it stands: `fetch` would write the target its own way. */
async function ask(url: string, query: string): Promise<unknown> {
  const [response] = await once(get(`${url}/v1/x`, { path: `/v1/x?${query}` }), 'response')
  return JSON.parse(await text(response))
}

describe('a query that was read before', () => {
  const start = () => {
    const queries = new QueryCache(schema, { maxCursorLength: 8 })
    return serve(app => {
      app.get('/v1/x', async request => {
        let known: unknown
        try {
          known = queries.read(request)
        } catch (error) {
          return { known: String(error), anew: attempt(() => readQuery(request, schema)) }
        }
        return { known, anew: attempt(() => readQuery(request, schema)) }
      })
    })
  }
  const attempt = (action: () => unknown): unknown => {
    try {
      return action()
    } catch (error) {
      return String(error)
    }
  }

  it('says what it would say when it were read anew, whatever it is', async () => {
    const url = await start()
    const pieces = ['topic=a', 'topic=b', 'limit=7', 'limit=x', 'x=y?cursor=ab', 'a#b', 'a;b', 'xcursor=ab', '']
    const cursors = ['ab-1', 'ab-22', '', 'A', '%61', 'a+b', 'abcdefghijk', 'ab;c', 'cursor=a', '?'].map(
      cursor => `cursor=${cursor}`,
    )
    const query = fc.array(fc.constantFrom(...pieces, ...cursors, 'cursor', '%63ursor=ab'), { maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(query, async parts => {
        const { known, anew } = (await ask(url, parts.join('&'))) as Record<string, unknown>
        expect(known).toEqual(anew)
      }),
      { numRuns: 500 },
    )
  })

  it('is not taken for the one that has a cursor besides', async () => {
    const url = await start()
    await ask(url, 'topic=a&cursor=ab-1')
    expect(await ask(url, 'topic=a&')).toEqual({ known: { topic: 'a', limit: 5 }, anew: { topic: 'a', limit: 5 } })
  })

  it('is not read again for another cursor, or without one', async () => {
    const url = await start()
    const readOnce = async (query: string): Promise<number> => {
      const before = reads
      await ask(url, query)
      // One is the other way, beside it.
      return reads - before - 1
    }
    expect(await readOnce('topic=a&cursor=ab-1&limit=3')).toBe(1)
    expect(await readOnce('topic=a&cursor=ab-2&limit=3')).toBe(0)
    expect(await readOnce('topic=a&cursor=ab-3&limit=4')).toBe(1)
    expect(await readOnce('topic=a&cursor=AB&limit=3')).toBe(1)
    expect(await readOnce('topic=a&limit=3')).toBe(1)
    expect(await readOnce('topic=a&limit=3')).toBe(0)
    expect(await readOnce('topic=b&limit=3')).toBe(1)
    expect(await readOnce('topic=b&limit=3')).toBe(0)
  })

  it('is forgotten when there have been very many others, unless it was asked for again', async () => {
    const queries = new QueryCache(schema, { maxCursorLength: 8, size: 16 })
    const url = await serve(app => {
      app.get('/v1/x', async request => queries.read(request))
    })
    const asks = async (query: string): Promise<number> => {
      const before = reads
      await ask(url, query)
      return reads - before
    }
    const others = (from: number): Promise<unknown> =>
      Promise.all(Array.from({ length: 16 }, (_, index) => ask(url, `topic=${from + index}&cursor=a`)))
    await asks('topic=a&cursor=a')
    await asks('topic=b&cursor=a')
    await others(0)
    expect(await asks('topic=a&cursor=a')).toBe(0)
    await others(16)
    expect(await asks('topic=a&cursor=a')).toBe(0)
    expect(await asks('topic=b&cursor=a')).toBe(1)
  })
})
