/** The header of a push page: the state of its connection. */

import { asSentence } from './close-reasons.js'
import { byId } from './dom.js'

/** @typedef {import('./mqway.js').ClientState} ClientState */

const header = byId('header', HTMLElement)
const stateLine = byId('state', HTMLElement)
const reasonLine = byId('reason', HTMLElement)
const lossLine = byId('loss', HTMLElement)
const countdown = byId('countdown', HTMLElement)
const tryNow = byId('try-now', HTMLButtonElement)

/** Names of the transports in the header. */
const names = { socket: 'a WebSocket', sse: 'an event stream', poll: 'long-polling' }

/** Names of the phases in the style sheet. */
const phases = { idle: 'stopped', connecting: 'connecting', open: 'connected', waiting: 'waiting', closed: 'stopped' }

/** @type {Record<string, string>} */
const sentences = {
  network: 'The gateway cannot be reached.',
  silent: 'The gateway was silent for too long.',
  'shutting-down': 'The gateway is shutting down or restarting.',
  'no-credentials': 'The gateway gave no ticket for this login.',
  'client-too-slow': 'This page did not read fast enough. It gets the rest now.',
}

/** @type {ReturnType<typeof setInterval> | undefined} */
let ticking
let wasOpen = false

/**
 * @param {string} path the endpoint that the page is about
 * @param {() => void} onTryNow
 */
export function wireHeader(path, onTryNow) {
  byId('gateway-host', HTMLElement).textContent = location.host
  byId('gateway-path', HTMLElement).textContent = path
  tryNow.addEventListener('click', onTryNow)
}

/** @param {ClientState} state */
export function renderHeader(state) {
  header.dataset['phase'] = phases[state.phase]
  const headline = headlineOf(state)
  if (stateLine.textContent !== headline) stateLine.textContent = headline
  document.title = `${titleOf(state)} · mqway`
  if (state.phase === 'open') {
    wasOpen = true
    byId('client-id', HTMLElement).textContent = state.device
  }
  const reason = reasonOf(state)
  reasonLine.hidden = reason.sentence === ''
  byId('reason-sentence', HTMLElement).textContent = reason.sentence
  byId('reason-detail', HTMLElement).textContent = reason.detail
  const isRefused = state.phase === 'closed' && state.error !== undefined
  tryNow.hidden = state.phase !== 'waiting' && !isRefused
  tryNow.textContent = isRefused ? 'Try again' : 'Try now'
  renderCountdown(state)
}

/**
 * Shows that events are lost, until the page is reloaded.
 *
 * @param {string} sentence
 */
export function renderLoss(sentence) {
  lossLine.hidden = false
  lossLine.textContent = sentence
}

/** @param {ClientState} state */
function headlineOf(state) {
  switch (state.phase) {
    case 'idle':
      return 'Not connected: there is nothing to listen to'
    case 'connecting':
      return state.failures === 0 ? 'Connecting …' : `Connecting, try ${state.failures + 1} …`
    case 'open':
      return `Connected over ${names[state.transport]}`
    case 'waiting':
      return wasOpen ? 'Connection lost' : 'Not connected'
    case 'closed':
      return state.error === undefined ? 'Disconnected' : 'Refused'
  }
}

/** @param {ClientState} state */
function titleOf({ phase }) {
  return phase === 'open' ? '● connected' : phase === 'connecting' ? '… connecting' : '○ not connected'
}

/** @param {ClientState} state */
function reasonOf(state) {
  if (state.phase === 'waiting') {
    return { sentence: sentenceOf(state.reason, state.detail), detail: `(${state.reason})` }
  }
  if (state.phase !== 'closed' || state.error === undefined) return { sentence: '', detail: '' }
  return {
    sentence: sentenceOf(state.error.reason, state.error.message),
    detail: `(${state.error.reason}, status ${state.error.status})`,
  }
}

/**
 * @param {string} reason
 * @param {string | undefined} detail what the gateway says
 */
function sentenceOf(reason, detail) {
  const [, status] = /^http-(\d+)$/.exec(reason) ?? []
  const own = sentences[reason] ?? detail
  if (own !== undefined && own !== reason) return asSentence(own)
  if (status !== undefined) return `The response is from a proxy, not from the gateway (status ${status}).`
  return 'The gateway refuses this page at the moment.'
}

/** @param {ClientState} state */
function renderCountdown(state) {
  clearInterval(ticking)
  countdown.hidden = state.phase !== 'waiting'
  if (state.phase !== 'waiting') return
  const show = () => {
    countdown.textContent = `Next try in ${Math.max(1, Math.ceil((state.retryAt - Date.now()) / 1_000))} s`
  }
  show()
  ticking = setInterval(show, 250)
}
