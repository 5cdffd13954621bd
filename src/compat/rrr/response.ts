import { isUtf8 } from 'node:buffer'
import { escapeLineEnds } from '../../base/one-line-json.js'
import type { Event } from '../../journal/event.js'

/*
 * What a request for a handle is answered with: `{"content":"…","handle":1,"id":7}`.
 */

/** `content` of no message. */
export const nothing = Buffer.from('""')

/**
 * `content` of a message, and what follows it: a payload that is no UTF-8 comes in base64, and `encoding` says so. The same
 * function for all, so that the hub makes the bytes once.
 */
export function contentOf({ payload }: Pick<Event, 'payload'>): Buffer {
  const json = isUtf8(payload)
    ? escapeLineEnds(JSON.stringify(payload.toString()))
    : `${JSON.stringify(payload.toString('base64'))},"encoding":"base64"`
  return Buffer.from(json)
}

/** The number that a handle is written as: digits that come back as they are. */
const digits = /^(0|[1-9]\d*)$/

/** A whole answer. @param id a number of the answer's own */
export function answerBody(content: Buffer, handle: string, id: number): Buffer {
  const isNumber = digits.test(handle) && Number.isSafeInteger(Number(handle))
  const json = isNumber ? handle : JSON.stringify(handle)
  return Buffer.concat([Buffer.from('{"content":'), content, Buffer.from(`,"handle":${json},"id":${id}}`)])
}
