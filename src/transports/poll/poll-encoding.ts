import { oneLineJson } from '../../base/one-line-json.js'
import type { Encoder } from '../../hub/event-sink.js'
import { eventJson } from '../event-json.js'
import { scriptEnd, scriptStart } from '../jsonp.js'
import type { PollEnd, PollForm } from './poll-response.js'

/*
 * What a poll's answer looks like. Events are encoded once for all polls, each with a comma before it, so that what one
 * poll gets is their bytes put together.
 */

/** How events are written. */
export interface PollEncoding {
  /** As in `EventJsonOptions`. */
  readonly json: boolean
  /** The function that a script calls with the answer; left out for JSON. */
  readonly callback?: string | undefined
}

/** The encoder of a form: for each the same function. */
export function pollEncoder({ json }: PollEncoding): Encoder {
  return json ? encodeWithJson : encodePlain
}

const encodePlain: Encoder = event => Buffer.from(`,${eventJson(event, { json: false })}`)
const encodeWithJson: Encoder = event => Buffer.from(`,${eventJson(event, { json: true })}`)

/** JSON for everybody: the same for all polls. */
const plainForm: PollForm = { start: '{"events":[', end: endJson }

/** What is round the events. */
export function pollForm(callback: string | undefined): PollForm {
  if (callback === undefined) return plainForm
  return { start: scriptStart(callback) + plainForm.start, end: end => endJson(end) + scriptEnd }
}

function endJson({ cursor, gap, device }: PollEnd): string {
  return `],"cursor":"${cursor}","gap":${gap === undefined ? 'null' : oneLineJson(gap)},"device":${oneLineJson(device)}}`
}
