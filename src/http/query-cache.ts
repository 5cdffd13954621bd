import type { FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { cursorIn, cursorName } from './cursor-position.js'
import { readQuery } from './parameters.js'

/** A longer target is read anew each time: it would take the place of many others. */
const longestTarget = 256

export interface QueryCacheOptions {
  /** Up to how many characters the schema takes a cursor as it is, where it has lower case letters, digits and `-`. */
  readonly longestCursor: number
  /** How many queries are remembered, at least; up to twice as many, of some 500 bytes each. Default: 4096. */
  readonly remembered?: number
}

/**
 * Reads queries as `readQuery` does, and remembers those that were right: who polls asks for the same each time, but for
 * the cursor, and so do ten thousand streams of one page. To read one anew takes ten times as long as to find it here.
 */
export class QueryCache<Query extends { readonly cursor?: string | undefined }> {
  readonly #schema: z.ZodType<Query>
  readonly #longestCursor: number
  readonly #remembered: number
  #recent = new Map<string, Query>()
  /** What was remembered before those; what of it is asked for again stays. */
  #older: ReadonlyMap<string, Query> = new Map()

  constructor(schema: z.ZodType<Query>, { longestCursor, remembered = 4096 }: QueryCacheOptions) {
    this.#schema = schema
    this.#longestCursor = longestCursor
    this.#remembered = remembered
  }

  /** @throws {ParameterError} for the first parameter that is wrong */
  read(request: FastifyRequest): Query {
    const { url } = request
    if (url.length > longestTarget) return readQuery(request, this.#schema)
    const place = cursorIn(url, this.#longestCursor)
    if (!place && url.includes(cursorName)) return readQuery(request, this.#schema)
    // With the cursor's name, which no target without one has.
    const others = place ? url.slice(0, place.start) + url.slice(place.end) : url
    const known = this.#recent.get(others) ?? this.#older.get(others)
    const query = known ?? readQuery(request, this.#schema)
    this.#keep(others, query)
    return known && place ? { ...known, cursor: url.slice(place.start, place.end) } : query
  }

  #keep(others: string, query: Query): void {
    if (this.#recent.has(others)) return
    if (this.#recent.size >= this.#remembered) {
      this.#older = this.#recent
      this.#recent = new Map()
    }
    this.#recent.set(others, query)
  }
}
