/** The strip of facts: brokers, push, journal, processes. */

import { bytes, count, duration, perSecond, rate, sum } from './dashboard-numbers.js'
import { element, foreign } from './dom.js'

/**
 * @typedef {import('./dashboard-stream.js').Snapshot} Snapshot
 * @typedef {import('./dashboard-stream.js').Welcome} Welcome
 *
 * @typedef {object} Fact
 * @property {string} name
 * @property {string} value
 * @property {string} [detail]
 * @property {boolean} [isBad]
 */

/** Seconds before its expiry from which on a certificate is a problem: two weeks. */
const CERTIFICATE_SECONDS = 14 * 86_400
/** The part of a bound from which on it is a problem. */
const NEARLY_FULL = 0.9

/**
 * @param {Snapshot} snapshot
 * @param {Welcome} welcome
 * @param {{ seconds: number, metrics: Record<string, number> }} [before] the snapshot before
 * @returns {Fact[]}
 */
export function factsOf({ time, health, metrics }, { push, maxConnections, maxEvents }, before) {
  /** @type {Fact[]} */
  const facts = health.brokers.map(({ broker, roundTripMs, detail }) => ({
    name: `Broker ${broker}`,
    value: detail === undefined ? 'answers' : 'not ready',
    detail: detail ?? `in ${roundTripMs} ms`,
    isBad: detail !== undefined,
  }))
  if (metrics === undefined)
    return [...facts, { name: 'Figures', value: 'missing', detail: 'a worker does not answer', isBad: true }]
  const at = Date.parse(time) / 1000
  const value = (/** @type {string} */ name) => sum(metrics, name)
  if (push) facts.push(...pushFacts(value, maxEvents))
  else facts.push({ name: 'Push', value: 'off', detail: 'no journal, topics or listeners' })
  const connections = value('mqway_connections')
  facts.push({
    name: 'Connections',
    value: count(connections),
    detail: `of ${count(maxConnections)}`,
    isBad: connections > NEARLY_FULL * maxConnections,
  })
  if (before) {
    const spent = sum(before.metrics, 'process_cpu_seconds_total')
    const processor = 100 * perSecond(value('process_cpu_seconds_total'), spent, at - before.seconds)
    facts.push({ name: 'Processor', value: `${rate(processor)} %`, detail: 'of one core' })
  }
  const buffered = value('mqway_buffered_bytes') + value('mqway_body_bytes')
  facts.push({ name: 'Buffered for slow clients', value: bytes(buffered) })
  const [workers, missing] = [value('mqway_workers'), value('mqway_workers_missing')]
  if (workers > 0) {
    const detail = missing > 0 ? `${count(missing)} missing` : 'all answer'
    facts.push({ name: 'Workers', value: count(workers), detail, isBad: missing > 0 })
  }
  const descriptors = value('process_open_fds')
  const maximum = value('process_max_fds')
  if (descriptors > 0) {
    const detail = workers === 0 && maximum > 0 ? `of ${count(maximum)}` : ''
    const isBad = workers === 0 && maximum > 0 && descriptors > NEARLY_FULL * maximum
    facts.push({ name: 'File descriptors', value: count(descriptors), detail, isBad })
  }
  const expiry = value('mqway_certificate_expiry_seconds')
  if (expiry > 0) {
    const left = expiry - at
    const detail = new Date(expiry * 1000).toLocaleDateString('en-GB')
    const isBad = left < CERTIFICATE_SECONDS
    facts.push({ name: 'Certificate', value: left > 0 ? `${duration(left)} left` : 'expired', detail, isBad })
  }
  const started = value('process_start_time_seconds')
  if (started > 0) {
    const detail = `since ${new Date(started * 1000).toLocaleString('en-GB', { dateStyle: 'short', timeStyle: 'short' })}`
    facts.push({ name: 'Running', value: duration(at - started), detail })
  }
  return facts
}

/**
 * @param {(name: string) => number} value
 * @param {number | undefined} maxEvents
 * @returns {Fact[]}
 */
function pushFacts(value, maxEvents) {
  const connected = value('mqway_push_connected') > 0
  const catchingUp = value('mqway_push_catching_up')
  const outstanding = value('mqway_push_receipts_outstanding')
  const missed = value('mqway_push_receipts_total{outcome="missed"}')
  return [
    {
      name: 'Push',
      value: connected ? 'connected' : 'not connected',
      detail: connected ? 'to the broker' : 'to the broker, tries again',
      isBad: !connected,
    },
    {
      name: 'Journal',
      value: `${count(value('mqway_push_journal_events'))} events`,
      detail: maxEvents === undefined ? '' : `of ${count(maxEvents)}`,
    },
    {
      name: 'Subscribers',
      value: count(value('mqway_push_subscribers')),
      detail: catchingUp > 0 ? `${count(catchingUp)} catching up` : 'event streams, polls, sockets',
    },
    { name: 'Present', value: count(value('mqway_push_listeners')), detail: 'devices and MQTT clients' },
    {
      name: 'Receipts',
      value: `${count(outstanding)} requested`,
      detail: `before their deadline; ${count(missed)} missed, ${count(value('mqway_push_receipts_total{outcome="stored"}'))} stored`,
    },
  ]
}

/**
 * Shows the facts; elements stay where only texts change.
 *
 * @param {HTMLElement} place
 * @param {Fact[]} facts
 */
export function renderFacts(place, facts) {
  for (const [index, { name, value, detail = '', isBad = false }] of facts.entries()) {
    let entry = place.children[index]
    if (!(entry instanceof HTMLElement)) {
      entry = element(
        'div',
        'fact',
        foreign('dt', '', ''),
        element('dd', 'fact-value'),
        foreign('dd', 'fact-detail', ''),
      )
      place.append(entry)
    }
    entry.classList.toggle('bad', isBad)
    for (const [part, text] of [name, value, detail].entries()) {
      const shown = entry.children[part]
      if (shown && shown.textContent !== text) shown.textContent = text
    }
  }
  while (place.children.length > facts.length) place.lastElementChild?.remove()
}
