import type { PollEnd, PollForm } from '../delivery/poll-answer.js'
import type { Event } from '../push/event.js'
import type { Encoder } from '../push/sink.js'
import { eventJson } from './event-json.js'

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
export function pollEncoder({ json, callback }: PollEncoding): Encoder {
  if (callback === undefined) return json ? encodeWithJson : encodePlain
  return json ? encodeScriptWithJson : encodeScript
}

const encodePlain: Encoder = event => Buffer.from(`,${eventJson(event, { json: false })}`)
const encodeWithJson: Encoder = event => Buffer.from(`,${eventJson(event, { json: true })}`)
const encodeScript: Encoder = event => Buffer.from(`,${scriptJson(event, false)}`)
const encodeScriptWithJson: Encoder = event => Buffer.from(`,${scriptJson(event, true)}`)

/** JSON that is a script as well: before ES2019, these two ended a line inside of a string. */
function scriptJson(event: Event, json: boolean): string {
  return eventJson(event, { json }).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029')
}

/** JSON for everybody: the same for all polls. */
const plainForm: PollForm = { start: '{"events":[', end: endJson }

/** What is round the events. The comment keeps a script from being another kind of file by what it begins with. */
export function pollForm(callback: string | undefined): PollForm {
  if (callback === undefined) return plainForm
  return { start: `/**/${callback}(${plainForm.start}`, end: end => `${endJson(end)});` }
}

function endJson({ cursor, gap, device }: PollEnd): string {
  return `],"cursor":"${cursor}","gap":${gap === undefined ? 'null' : JSON.stringify(gap)},"device":${JSON.stringify(device)}}`
}
