import { isUtf8 } from 'node:buffer'
import { escapeLineEnds } from '../../base/one-line-json.js'
import type { Event } from '../../journal/event.js'

/*
 * The response to a request for a handle: `{"content":"…","handle":1,"id":7}`.
 */

/** `content` without a message. */
export const emptyContent = Buffer.from('""')

/**
 * `content` of a message, with `encoding` after it for a payload that is not UTF-8 and therefore in base64. One function for
 * all requests, so that the hub encodes each event once.
 */
export function contentOf({ payload }: Pick<Event, 'payload'>): Buffer {
  const json = isUtf8(payload)
    ? escapeLineEnds(JSON.stringify(payload.toString()))
    : `${JSON.stringify(payload.toString('base64'))},"encoding":"base64"`
  return Buffer.from(json)
}

/** A handle that is written as a number. */
const digits = /^(0|[1-9]\d*)$/

/** The body of a response. @param id numbers the responses */
export function responseBody(content: Buffer, handle: string, id: number): Buffer {
  const isNumber = digits.test(handle) && Number.isSafeInteger(Number(handle))
  const json = isNumber ? handle : JSON.stringify(handle)
  return Buffer.concat([Buffer.from('{"content":'), content, Buffer.from(`,"handle":${json},"id":${id}}`)])
}
