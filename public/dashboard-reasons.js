/** Tables of refusals, drops and endings by reason: counts of the last minute and since the start. */

import { byLabel, count, sum } from './dashboard-numbers.js'
import { renderRows } from './dashboard-table.js'
import { byId } from './dom.js'

/** Samples of the last minute are kept, this many milliseconds. */
const WINDOW_MS = 60_000

/**
 * A row of counts.
 *
 * @typedef {object} Counted
 * @property {string} key
 * @property {string} name
 * @property {string} sentence
 * @property {number} total
 */

/** @type {[metric: string, name: string, sentence: string][]} */
const drops = [
  ['mqway_push_cut_off_total', 'subscribers-too-slow', 'Subscribers that read too slowly were disconnected'],
  ['mqway_push_gaps_total', 'gaps', 'Subscribers were told that events are missing'],
  ['mqway_push_filters_refused_total', 'push-filters', 'Subscriptions beyond push.maxSubscriptionsBytes'],
  ['mqway_push_presence_dropped_total', 'presence-messages', 'Messages about presence were dropped'],
  ['mqway_push_client_messages_dropped_total', 'client-messages', 'Messages about clients were dropped'],
  ['mqway_retained_refused_total', 'retained', 'Retained messages were delivered and not stored'],
  ['mqway_publish_delays_total', 'publishes-too-fast', 'Connections were paused because they publish too fast'],
  ['mqway_push_receipts_total{outcome="missed"}', 'receipts-missed', 'Requested receipts were missed at the deadline'],
  ['mqway_mails_failed_total', 'mails-failed', 'Mails could not be sent'],
  ['mqway_webhook_calls_failed_total', 'webhooks-failed', 'Webhook calls were given up'],
  ['mqway_worker_ends_total', 'workers-ended', 'Worker processes ended and were replaced'],
]

/** @type {[metric: string, label: string, sentence: (value: string) => string][]} */
const labelled = [
  ['mqway_denied_total', 'action', action => `Denied by the rules: ${action}`],
  ['mqway_session_messages_dropped_total', 'option', option => `Messages were not queued because of ${option}`],
  ['mqway_subscriptions_refused_total', 'option', option => `Topic filters were refused because of ${option}`],
  ['mqway_sessions_ended_total', 'reason', reason => `Sessions were ended: ${reason}`],
]

/**
 * @param {Record<string, number>} metrics
 * @param {Record<string, string>} reasons
 * @returns {Counted[]}
 */
export function refusalsOf(metrics, reasons) {
  return [
    ...byReason(metrics, 'mqway_refusals_total', reasons),
    ...labelled.flatMap(([metric, label, sentence]) =>
      [...byLabel(metrics, metric, label)].map(([value, total]) => ({
        key: `${metric} ${value}`,
        name: value,
        sentence: sentence(value),
        total,
      })),
    ),
    ...drops.map(([metric, name, sentence]) => ({ key: metric, name, sentence, total: sum(metrics, metric) })),
  ].filter(({ total }) => total > 0)
}

/**
 * @param {Record<string, number>} metrics
 * @param {Record<string, string>} reasons
 */
export function endingsOf(metrics, reasons) {
  return byReason(metrics, 'mqway_endings_total', reasons)
}

/**
 * @param {Record<string, number>} metrics
 * @param {string} metric
 * @param {Record<string, string>} reasons
 * @returns {Counted[]}
 */
function byReason(metrics, metric, reasons) {
  return [...byLabel(metrics, metric, 'reason')].map(([reason, total]) => ({
    key: `${metric} ${reason}`,
    name: reason,
    sentence: reasons[reason] ?? '',
    total,
  }))
}

/** A table of counts, those of the last minute first. */
export class ReasonTable {
  #name
  #noun
  /** Earlier counts by key, oldest first. @type {{ at: number, totals: Map<string, number> }[]} */
  #past = []

  /**
   * @param {string} name of its elements
   * @param {string} noun
   */
  constructor(name, noun) {
    this.#name = name
    this.#noun = noun
  }

  /**
   * @param {Counted[]} counted
   * @param {number} at milliseconds
   */
  show(counted, at) {
    this.#past.push({ at, totals: new Map(counted.map(({ key, total }) => [key, total])) })
    while (this.#past.length > 1 && at - (this.#past[0]?.at ?? at) > WINDOW_MS) this.#past.shift()
    const before = this.#past[0]?.totals
    const rows = counted
      .map(each => ({ ...each, recent: Math.max(0, each.total - (before?.get(each.key) ?? 0)) }))
      .sort((a, b) => b.recent - a.recent || b.total - a.total)
    renderRows(
      byId(this.#name, HTMLElement),
      rows.map(({ key, name, sentence, recent, total }) => ({
        key,
        className: recent > 0 ? 'recent' : '',
        cells: [
          { text: sentence === '' ? name : `${sentence} (${name})` },
          { text: recent === 0 ? '' : `+${count(recent)}`, className: 'number' },
          { text: count(total), className: 'number' },
        ],
      })),
    )
    byId(`${this.#name}-empty`, HTMLElement).hidden = rows.length > 0
    const recent = rows.reduce((sum, row) => sum + row.recent, 0)
    byId(`${this.#name}-count`, HTMLElement).textContent =
      rows.length === 0 ? '' : `${count(recent)} ${this.#noun} in the last minute`
  }
}
