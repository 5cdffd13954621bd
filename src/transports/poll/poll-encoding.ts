import { oneLineJson } from '../../base/one-line-json.js'
import type { Encoder } from '../../hub/event-sink.js'
import { type EventJsonOptions, eventJson } from '../event-json.js'
import { scriptEnd, scriptStart } from '../jsonp.js'
import type { PollEnd, PollFormat } from './poll-response.js'

/*
 * The body of a poll's response. Each event is encoded once for all polls, with a comma before it, so that a response is a concatenation.
 */

/** The encoder: one function for each value of `json`, so that polls share the encoded events. */
export function pollEncoder({ json }: EventJsonOptions): Encoder {
  return json ? encodeWithJson : encodePlain
}

const encodePlain: Encoder = event => Buffer.from(`,${eventJson(event, { json: false })}`)
const encodeWithJson: Encoder = event => Buffer.from(`,${eventJson(event, { json: true })}`)

const jsonFormat: PollFormat = { start: '{"events":[', end: endJson }

/** The format of a response. @param callback of JSONP; `undefined` for JSON */
export function pollFormat(callback: string | undefined): PollFormat {
  if (callback === undefined) return jsonFormat
  return { start: scriptStart(callback) + jsonFormat.start, end: end => endJson(end) + scriptEnd }
}

function endJson({ cursor, gap, device }: PollEnd): string {
  return `],"cursor":"${cursor}","gap":${gap === undefined ? 'null' : oneLineJson(gap)},"device":${oneLineJson(device)}}`
}
