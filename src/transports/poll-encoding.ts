import type { Event } from '../push/event.js'
import type { Encoder, Gap } from '../push/sink.js'
import { eventJson } from './event-json.js'

/*
 * What a poll's answer looks like. Events are encoded once for all polls, each with a comma before it, so that what one
 * poll gets is their bytes put together.
 */

/** How a poll is answered. */
export interface PollForm {
  /** As in `EventJsonOptions`. */
  readonly json: boolean
  /** The function that a script calls with the answer; left out for JSON. */
  readonly callback?: string | undefined
}

/** The encoder of a form: for each the same function. */
export function pollEncoder({ json, callback }: PollForm): Encoder {
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

/** What comes before the events. The comment keeps an answer from being another kind of file by what it begins with. */
export function pollStart(callback: string | undefined): string {
  return `${callback === undefined ? '' : `/**/${callback}(`}{"events":[`
}

/** What comes after the events. */
export interface PollEnd {
  /** Empty where there is no place yet. */
  readonly cursor: string
  readonly gap: Gap | undefined
  readonly device: string
}

export function pollEnd({ cursor, gap, device }: PollEnd, callback: string | undefined): string {
  const gapJson = gap === undefined ? 'null' : JSON.stringify(gap)
  const end = callback === undefined ? '' : ');'
  return `],"cursor":"${cursor}","gap":${gapJson},"device":${JSON.stringify(device)}}${end}`
}
