/** The dashboard: connects the event stream with its views. */

import { Charts } from './dashboard-charts.js'
import { wireClientDialog } from './dashboard-client-dialog.js'
import { ClientTable } from './dashboard-clients.js'
import { factsOf, renderFacts } from './dashboard-facts.js'
import { ListenersView } from './dashboard-listeners.js'
import { bytes, count, perSecond, rate, sum } from './dashboard-numbers.js'
import { endingsOf, ReasonTable, refusalsOf } from './dashboard-reasons.js'
import { DashboardStream } from './dashboard-stream.js'
import { Tail } from './dashboard-tail.js'
import { wireTopics } from './dashboard-topics.js'
import { byId } from './dom.js'
import { LoginView } from './login-view.js'

/**
 * @typedef {import('./dashboard-stream.js').Snapshot} Snapshot
 * @typedef {import('./dashboard-stream.js').StreamState} StreamState
 * @typedef {import('./dashboard-stream.js').Welcome} Welcome
 */

const header = byId('header', HTMLElement)
const stateLine = byId('state', HTMLElement)
const reasonLine = byId('reason', HTMLElement)
const tryNow = byId('try-now', HTMLButtonElement)
const main = byId('main', HTMLElement)
const refused = byId('refused', HTMLElement)
const facts = byId('facts', HTMLElement)

/** Interval of the timer with which Node.js measures the event-loop delay, in milliseconds. */
const TIMER_MS = 10

/** @type {Welcome} */
let welcome = { version: '', interval: 2, push: false, maxConnections: 0, reasons: {} }
/** The last snapshot with figures. @type {{ seconds: number, metrics: Record<string, number> } | undefined} */
let before
/** Why the gateway is not ready; undefined while it is, or unknown. @type {string | undefined} */
let problem
/** @type {ReturnType<typeof setInterval> | undefined} */
let countdown

const login = new LoginView(() => stream.connect())
const authorization = () => login.authorization
const openDialog = wireClientDialog(authorization, () => clients.reload())
const clients = new ClientTable(authorization, openDialog)
const listeners = new ListenersView(authorization)
const tail = new Tail(() => login.ticket)
const showTopics = wireTopics(topic => {
  tail.watch(topic)
  byId('tail-form', HTMLFormElement).scrollIntoView({ block: 'start' })
})
const refusals = new ReasonTable('refusals', 'refused or dropped')
const endings = new ReasonTable('endings', 'ended')

const charts = new Charts(byId('charts', HTMLElement))
charts.add({
  title: 'Connections',
  lines: [
    { name: 'WebSocket', hue: 0 },
    { name: 'TCP', hue: 1 },
    { name: 'TLS', hue: 2 },
    { name: 'subscribers', hue: 3 },
  ],
  format: count,
  least: 5,
})
charts.add({
  title: 'Messages per second',
  className: 'chart-push',
  lines: [
    { name: 'published', hue: 0 },
    { name: 'to event subscribers', hue: 1 },
  ],
  format: rate,
  least: 5,
})
charts.add({
  title: 'WebSocket frames per second',
  className: 'chart-frames',
  lines: [
    { name: 'in', hue: 0 },
    { name: 'out', hue: 1 },
  ],
  format: rate,
  least: 5,
})
charts.add({
  title: 'MQTT bytes per second',
  lines: [
    { name: 'in', hue: 0 },
    { name: 'out', hue: 1 },
  ],
  format: bytes,
  isBytes: true,
  least: 1024,
})
charts.add({
  title: 'Event-loop delay',
  lines: [
    { name: 'p99', hue: 0 },
    { name: 'max', hue: 1 },
  ],
  format: value => `${rate(value)} ms`,
  least: 20,
})
charts.add({
  title: 'Memory',
  lines: [
    { name: 'resident', hue: 0 },
    { name: 'JavaScript', hue: 1 },
  ],
  format: bytes,
  isBytes: true,
  least: 64 * 2 ** 20,
})
charts.add({
  title: 'Refused and ended per second',
  lines: [
    { name: 'refused', hue: 1 },
    { name: 'connections ended', hue: 0 },
  ],
  format: rate,
  least: 1,
})

const stream = new DashboardStream({
  authorization,
  onWelcome(fresh) {
    welcome = fresh
    before = undefined
    byId('version', HTMLElement).textContent = fresh.version
    document.body.classList.toggle('without-push', !fresh.push)
    charts.fit()
    clients.start()
    if (fresh.push) listeners.start()
    else listeners.stop()
  },
  onSnapshot: take,
  onTopics: showTopics,
  onState: renderState,
})

/** @param {Snapshot} snapshot */
function take(snapshot) {
  problem = snapshot.health.ready ? undefined : (snapshot.health.detail ?? 'The gateway is not ready.')
  renderHealth()
  renderFacts(facts, factsOf(snapshot, welcome, before))
  const { metrics } = snapshot
  if (metrics === undefined) return
  const at = Date.parse(snapshot.time)
  const seconds = at / 1000
  charts.sample(seconds, samplesOf(seconds, metrics))
  before = { seconds, metrics }
  refusals.show(refusalsOf(metrics, welcome.reasons), at)
  endings.show(endingsOf(metrics, welcome.reasons), at)
}

/**
 * The values of all charts, in their order.
 *
 * @param {number} seconds
 * @param {Record<string, number>} metrics
 * @returns {(number | null)[][]}
 */
function samplesOf(seconds, metrics) {
  const value = (/** @type {string} */ name, /** @type {string[]} */ ...labels) => sum(metrics, name, ...labels)
  const pace = (/** @type {string} */ name, /** @type {string[]} */ ...labels) =>
    before && perSecond(value(name, ...labels), sum(before.metrics, name, ...labels), seconds - before.seconds)
  const open = (/** @type {string} */ transport) => value('mqway_connections', `"${transport}"`, '"open"')
  // The delay that Node.js measures includes the interval of its timer.
  const delay = (/** @type {string} */ kind) =>
    Math.max(0, 1000 * value(`nodejs_eventloop_lag_${kind}_seconds`) - TIMER_MS)
  const pushed = welcome.push ? [pace('mqway_push_newest_event'), pace('mqway_push_deliveries_total')] : []
  return [
    [open('websocket'), open('tcp'), open('tls'), welcome.push ? value('mqway_push_subscribers') : null],
    pushed.map(each => each ?? null),
    [pace('mqway_frames_total', '"in"') ?? null, pace('mqway_frames_total', '"out"') ?? null],
    [pace('mqway_bytes_total', '"in"') ?? null, pace('mqway_bytes_total', '"out"') ?? null],
    [delay('p99'), delay('max')],
    [value('process_resident_memory_bytes'), value('nodejs_heap_size_used_bytes')],
    [pace('mqway_refusals_total') ?? null, pace('mqway_endings_total') ?? null],
  ]
}

/** @param {StreamState} state */
function renderState(state) {
  clearInterval(countdown)
  const isRefused = state.phase === 'refused'
  if (isRefused) {
    clients.stop()
    listeners.stop()
    tail.stop()
    login.offer(true)
  }
  main.hidden = isRefused
  refused.hidden = !(isRefused && state.status === 403)
  tryNow.hidden = state.phase !== 'waiting'
  if (state.phase === 'open') return renderHealth()
  // Connecting again after a lost connection: the reason stays until it is open.
  if (state.phase === 'connecting' && header.dataset['phase'] === 'waiting') return
  header.dataset['phase'] = isRefused ? 'stopped' : state.phase
  document.title = '○ mqway dashboard'
  if (state.phase === 'connecting') return say('Connecting …')
  if (isRefused) return say(state.status === 403 ? 'No access' : 'Not logged in', state.sentence)
  const { sentence, retryAt } = state
  const show = () => {
    const left = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000))
    say('No connection: the figures are old', `${sentence} Next try in ${left} s.`)
  }
  show()
  countdown = setInterval(show, 1000)
}

function renderHealth() {
  header.dataset['phase'] = problem === undefined ? 'connected' : 'waiting'
  say(problem === undefined ? 'Ready' : 'Not ready', problem)
  document.title = problem === undefined ? '● mqway dashboard' : '▲ not ready · mqway dashboard'
}

/**
 * @param {string} headline
 * @param {string} [sentence]
 */
function say(headline, sentence = '') {
  if (stateLine.textContent !== headline) stateLine.textContent = headline
  if (reasonLine.textContent !== sentence) reasonLine.textContent = sentence
  reasonLine.hidden = sentence === ''
}

/** @param {unknown} error */
function showFault(error) {
  const notice = byId('notice', HTMLElement)
  notice.hidden = false
  notice.textContent = `Something went wrong in this page: ${error instanceof Error ? error.message : String(error)}`
}

window.addEventListener('error', ({ error, message }) => showFault(error ?? message))
window.addEventListener('unhandledrejection', ({ reason }) => showFault(reason))
window.addEventListener('online', () => {
  if (header.dataset['phase'] === 'waiting' && !tryNow.hidden) stream.connect()
})
tryNow.addEventListener('click', () => stream.connect())
byId('gateway-host', HTMLElement).textContent = location.host
stream.connect()
