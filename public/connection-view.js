/** The header of the MQTT page: the state of its connection, and the form of its settings. */

import { byId } from './dom.js'

export { animateMessage } from './message-animation.js'

/** @typedef {import('./connection.js').ConnectionState} ConnectionState */

const header = byId('header', HTMLElement)
const state = byId('state', HTMLElement)
const reasonLine = byId('reason', HTMLElement)
const lossLine = byId('loss', HTMLElement)
const countdown = byId('countdown', HTMLElement)
const tryNow = byId('try-now', HTMLButtonElement)
const settings = byId('settings', HTMLFormElement)
const settingsToggle = byId('settings-toggle', HTMLButtonElement)
const disconnect = byId('disconnect', HTMLButtonElement)

const secure = location.protocol === 'https:'

/** @type {ReturnType<typeof setInterval> | undefined} */
let ticking

/** @param {ConnectionState} connection */
export function renderConnection(connection) {
  header.dataset['phase'] = connection.phase
  const headline = headlineOf(connection)
  if (state.textContent !== headline) state.textContent = headline
  document.title = `${titleOf(connection)} · mqway`

  const reason = connection.phase === 'waiting' || connection.phase === 'stopped' ? connection.reason : undefined
  reasonLine.hidden = reason === undefined
  byId('reason-sentence', HTMLElement).textContent = reason?.sentence ?? ''
  byId('reason-detail', HTMLElement).textContent = reason?.detail ?? ''

  const loss = connection.phase === 'waiting' && connection.loss !== connection.reason ? connection.loss : undefined
  lossLine.hidden = loss === undefined
  if (loss !== undefined) lossLine.textContent = `Reason of the loss: ${loss.sentence} (${loss.detail ?? 'no code'})`

  tryNow.hidden = connection.phase !== 'waiting' && connection.phase !== 'stopped'
  tryNow.textContent = connection.phase === 'stopped' ? 'Connect' : 'Try now'
  disconnect.disabled = connection.phase === 'stopped'
  renderLogin(connection, reason)
  renderCountdown(connection)
}

/** Whether other credentials may help: then the settings stay open until the page is connected. */
let wantsLogin = false
/** Whether the settings were submitted, and the page is not connected yet. */
let isSent = false

/**
 * @param {ConnectionState} connection
 * @param {import('./close-reasons.js').Reason | undefined} reason
 */
function renderLogin(connection, reason) {
  if (connection.phase === 'connecting') return
  wantsLogin = reason?.login === true
  if (connection.phase === 'connected' && isSent) showSettings(false)
  // The header shows the sentence.
  if (wantsLogin && isSent) byId('password', HTMLInputElement).setAttribute('aria-invalid', 'true')
  else byId('password', HTMLInputElement).removeAttribute('aria-invalid')
  if (wantsLogin && settings.hidden) showSettings(true, false)
}

/** @param {ConnectionState} connection */
function headlineOf(connection) {
  switch (connection.phase) {
    case 'connecting':
      return connection.failures === 0 ? 'Connecting …' : `Connecting, try ${connection.failures + 1} …`
    case 'connected':
      return `Connected: ${connection.version} over ${secure ? 'wss' : 'ws'}`
    case 'waiting':
      return connection.loss !== undefined ? 'Connection lost' : 'Not connected'
    case 'stopped':
      return connection.reason === undefined ? 'Disconnected' : 'Connection refused'
  }
}

/** @param {ConnectionState} connection */
function titleOf(connection) {
  const titles = {
    connecting: '… connecting',
    connected: '● connected',
    waiting: '○ not connected',
    stopped: '○ disconnected',
  }
  return titles[connection.phase]
}

/** @param {ConnectionState} connection */
function renderCountdown(connection) {
  clearInterval(ticking)
  countdown.hidden = connection.phase !== 'waiting'
  if (connection.phase !== 'waiting') return
  const show = () => {
    const seconds = Math.max(1, Math.ceil((connection.retryAt - Date.now()) / 1_000))
    countdown.textContent = `Next try in ${seconds} s`
  }
  show()
  ticking = setInterval(show, 250)
}

/**
 * @typedef {object} Answers
 * @property {string} path
 * @property {string} userName
 * @property {string} password
 */

/**
 * @param {Answers} initial
 * @param {string} clientId
 * @param {{ onConnect: (answers: Answers) => void, onTryNow: () => void, onDisconnect: () => void }} actions
 */
export function wireConnection(initial, clientId, actions) {
  const path = byId('path', HTMLInputElement)
  const userName = byId('user-name', HTMLInputElement)
  const password = byId('password', HTMLInputElement)
  path.value = initial.path
  userName.value = initial.userName
  byId('client-id', HTMLElement).textContent = clientId
  byId('gateway-host', HTMLElement).textContent = location.host
  showPath(initial.path)

  // After a refusal the user wants to change them, even if the form is already open.
  settingsToggle.addEventListener('click', () => showSettings(settings.hidden === true || wantsLogin || isSent))
  tryNow.addEventListener('click', actions.onTryNow)
  disconnect.addEventListener('click', actions.onDisconnect)
  settings.addEventListener('submit', event => {
    event.preventDefault()
    const objection = objectionToPath(path.value)
    byId('settings-objection', HTMLElement).textContent = objection ?? ''
    if (objection !== undefined) return
    showPath(path.value)
    isSent = true
    actions.onConnect({ path: path.value, userName: userName.value, password: password.value })
  })
  settings.addEventListener('keydown', event => {
    if (event.key === 'Escape') showSettings(false)
  })
}

/** @param {string} path */
function showPath(path) {
  byId('gateway-path', HTMLElement).textContent = path
}

/** @param {string} path */
function objectionToPath(path) {
  if (!path.startsWith('/') || path.startsWith('//')) return 'The path starts with one /, such as /mqtt.'
  // RFC 6455 §3: a WebSocket URL has no fragment.
  if (path.includes('#')) return 'The path of a WebSocket has no #.'
  return undefined
}

/**
 * @param {boolean} open
 * @param {boolean} [focus]
 */
function showSettings(open, focus = true) {
  settings.hidden = !open
  settingsToggle.setAttribute('aria-expanded', String(open))
  if (!open) isSent = false
  if (open && focus) byId(wantsLogin ? 'user-name' : 'path', HTMLInputElement).focus()
  if (!open && settings.contains(document.activeElement)) settingsToggle.focus()
}
