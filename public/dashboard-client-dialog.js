/** One client in detail, and how to disconnect it. */

import { nameOf, protocolOf } from './dashboard-clients.js'
import { bytes, count, duration } from './dashboard-numbers.js'
import { Refusal, request } from './dashboard-stream.js'
import { byId, element, foreign } from './dom.js'

/** @typedef {import('./dashboard-clients.js').Client} Client */

const dialog = byId('client-dialog', HTMLDialogElement)
const reason = byId('client-reason', HTMLInputElement)
const session = byId('client-session', HTMLInputElement)
const objection = byId('client-objection', HTMLElement)
const filters = byId('client-filters', HTMLDetailsElement)

/** @type {Client | undefined} */
let shown

/**
 * @param {() => string | undefined} authorization
 * @param {(client: Client) => void} onDisconnected
 * @returns {(client: Client) => void} opens the dialog
 */
export function wireClientDialog(authorization, onDisconnected) {
  byId('client-close', HTMLButtonElement).addEventListener('click', () => dialog.close())
  dialog.addEventListener('close', () => {
    shown = undefined
  })
  byId('client-form', HTMLFormElement).addEventListener('submit', event => {
    event.preventDefault()
    if (shown) disconnect(shown)
  })

  /** @param {Client} client */
  async function disconnect(client) {
    objection.textContent = ''
    const query = new URLSearchParams()
    if (reason.value !== '') query.set('reason', reason.value)
    // A session is that of a client id, and a connection needs none.
    const endsSession = session.checked && hasUrl(client)
    if (endsSession) query.set('session', 'true')
    else query.set('connection', client.connection)
    const url = endsSession ? `/v1/clients/${encodeURIComponent(client.clientId)}` : '/v1/clients'
    try {
      await request(`${url}?${query}`, { method: 'DELETE', authorization: authorization() })
    } catch (error) {
      const isGone = error instanceof Refusal && error.status === 404
      if (!isGone) {
        objection.textContent = error instanceof Refusal ? error.message : 'The gateway cannot be reached.'
        return
      }
    }
    if (shown === client) dialog.close()
    onDisconnected(client)
  }

  /** @param {Client} client */
  async function showFilters(client) {
    if (!hasUrl(client) || client.subscriptions === undefined) return
    const query = new URLSearchParams({ connection: client.connection })
    const url = `/v1/clients/${encodeURIComponent(client.clientId)}?${query}`
    const response = await request(url, { authorization: authorization() }).catch(() => undefined)
    /** @type {{ clients: { filters?: string[] }[] } | undefined} */
    const found = await response?.json()
    const all = found?.clients[0]?.filters ?? []
    if (shown !== client || all.length === 0) return
    filters.hidden = false
    const list = filters.querySelector('ul')
    const summary = filters.querySelector('summary')
    const isCut = all.length < client.subscriptions
    if (summary) summary.textContent = isCut ? `The first ${count(all.length)} topic filters` : 'Topic filters'
    list?.replaceChildren(...all.map(filter => foreign('li', '', filter)))
  }

  return client => {
    shown = client
    byId('client-dialog-title', HTMLElement).textContent = client.clientId || `Connection ${client.connection}`
    byId('client-facts', HTMLElement).replaceChildren(...factsOf(client))
    byId('client-session-label', HTMLElement).hidden = client.subscriptions === undefined || !hasUrl(client)
    filters.hidden = true
    filters.open = false
    reason.value = ''
    session.checked = false
    objection.textContent = ''
    dialog.showModal()
    showFilters(client)
  }
}

/**
 * Whether a URL can have its client id: browsers take `.` and `..` out of paths, also percent-encoded.
 *
 * @param {Client} client
 */
function hasUrl({ clientId }) {
  return !/^\.{0,2}$/.test(clientId)
}

/** @param {Client} client */
function factsOf(client) {
  const { address, path, broker, since, bytesIn, bytesOut, bufferedBytes, queue, subscriptions, connection } = client
  const connected = new Date(since)
  /** @type {[string, string | undefined][]} */
  const facts = [
    ['User', nameOf(client) || 'none'],
    ['Address', address],
    ['Protocol', protocolOf(client)],
    ['Path', path],
    ['Broker', broker],
    ['Connected', `${duration((Date.now() - connected.getTime()) / 1000)}, since ${connected.toLocaleString('en-GB')}`],
    ['From it', bytes(bytesIn)],
    ['To it', bytes(bytesOut)],
    ['Buffered', bytes(bufferedBytes)],
    ['In its session', queue && `${count(queue.messages)} messages, ${bytes(queue.bytes)}`],
    ['Subscriptions', subscriptions === undefined ? undefined : count(subscriptions)],
    ['Connection in the log', connection],
  ]
  return facts.flatMap(([name, value]) =>
    value === undefined ? [] : [element('div', '', element('dt', '', name), foreign('dd', '', value))],
  )
}
