import { randomUUID } from 'node:crypto'
import { oneLineJson } from '../../base/one-line-json.js'
import type { Event } from '../../journal/event.js'
import type { Alert } from './alert.js'
import type { DeadLetter } from './dead-letters.js'
import type { Batch, EntryBounds, FoundEntry, QueuedCall } from './notification-queue.js'
import { type Rule, webhookName } from './rules.js'

/** Characters of the JSON that waits for one webhook, and for all webhooks. */
const [maxOfOne, maxOfAll] = [16 * 1024 ** 2, 64 * 1024 ** 2]
/** Characters that count for a waiting event besides its JSON: what it takes in memory. */
export const eventOverhead = 256
/** Characters of the JSON in one call, and of one event with its payload. */
const [maxInCall, maxEvent] = [262_144, 1024 ** 2]

/** The bounds of one of several webhooks, in characters. */
export interface WebhookBounds {
  /** Of the JSON that waits, with `eventOverhead` for each event. */
  readonly waiting: number
  /** Of the JSON in one call, unless one event has more. */
  readonly call: number
  /** Of the JSON of one event with its payload. */
  readonly event: number
}

/** The bounds of one of `count` webhooks: above 4, each has an equal share of what all of them may have. */
export function webhookBounds(count: number): WebhookBounds {
  const share = Math.min(maxOfOne, Math.floor(maxOfAll / Math.max(1, count)))
  return { waiting: share, call: Math.min(maxInCall, share), event: Math.min(maxEvent, share - eventOverhead) }
}

/**
 * The JSON of an alert in a call: that of an event in the push API, without a payload that is too large.
 *
 * @param encode makes the JSON of an event
 * @param maxLength characters with the payload
 */
export function alertJson(
  { event, json, time, text }: Alert,
  encode: (event: Event) => string,
  maxLength: number,
): string {
  if (event === undefined) return oneLineJson({ ...Object(json), time: new Date(time).toISOString(), text })
  if (event.payload.length <= maxLength) {
    const whole = encode(event)
    if (whole.length <= maxLength) return whole
  }
  const { payload: _, ...others } = JSON.parse(encode({ ...event, payload: Buffer.alloc(0) }))
  return oneLineJson({ ...others, payloadBytes: event.payload.length })
}

/** The bounds of the events in one call of a rule. */
export function callBounds({ config }: Rule, bounds: WebhookBounds): EntryBounds {
  return { count: config.webhook?.maxEvents ?? 1, length: bounds.call }
}

/** Composes the call of a rule for its oldest entries. */
export function composeCall({ name, key }: Rule, { entries, more }: Batch, now: number): Omit<QueuedCall, 'sequence'> {
  const members = oneLineJson({ rule: name, ...(more > 0 && { dropped: more }) }).slice(0, -1)
  return {
    rule: key,
    id: `msg_${randomUUID()}`,
    text: `${members},"events":[${entries.map(({ text }) => text).join(',')}]}`,
    events: entries.length,
    dropped: more,
    // The newest of its events has the whole time for its attempts.
    created: Math.min(now, entries.at(-1)?.time ?? now),
  }
}

/** The lines of the dead-letter log for entries that had no room: one for each webhook. Mails have none. */
export function droppedLetters(dropped: readonly FoundEntry[]): DeadLetter[] {
  const events = new Map<string, string[]>()
  for (const { rule: key, entry } of dropped) {
    const rule = webhookName(key)
    if (rule === undefined) continue
    const texts = events.get(rule) ?? []
    texts.push(entry.text)
    events.set(rule, texts)
  }
  return [...events].map(([rule, texts]) => ({ rule, reason: 'queue-full', events: texts }))
}

/** The events of a call, each as JSON. */
export function eventsOf({ text }: Pick<QueuedCall, 'text'>): string[] {
  const { events }: { readonly events: readonly object[] } = JSON.parse(text)
  return events.map(event => oneLineJson(event))
}
