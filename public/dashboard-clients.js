/**
 * The table of connected MQTT clients (`/v1/clients`). The gateway searches, and sends pages; only the rows in sight are elements. Rows are chosen with the
 * arrow keys and opened with Enter.
 */

import { bytes, count, duration } from './dashboard-numbers.js'
import { Refusal, request } from './dashboard-stream.js'
import { byId, element, foreign, oncePerFrame } from './dom.js'

/**
 * @typedef {object} Client
 * @property {string} clientId
 * @property {string} connection
 * @property {string} [user]
 * @property {string} [username]
 * @property {string} address
 * @property {number} [protocolVersion]
 * @property {string} transport
 * @property {string} [path]
 * @property {string} broker
 * @property {string} since
 * @property {number} bytesIn
 * @property {number} bytesOut
 * @property {number} bufferedBytes
 * @property {{ messages: number, bytes: number }} [queue]
 * @property {number} [subscriptions]
 *
 * @typedef {object} Page
 * @property {string | undefined} cursor for this page
 * @property {string | undefined} next for the next one; undefined at the end
 * @property {Client[]} clients
 */

/** Clients of one request; those in memory. */
const [PAGE, MAX_CLIENTS] = [200, 20_000]
/** Height of a row in CSS pixels, as in the style sheet; rows above and below those in sight. */
const [ROW, AROUND] = [34, 8]
const REFRESH_MS = 3_000

const protocols = new Map([
  [3, 'MQTT 3.1'],
  [4, 'MQTT 3.1.1'],
  [5, 'MQTT 5'],
])
const transports = new Map([
  ['websocket', 'WebSocket'],
  ['tcp', 'TCP'],
  ['tls', 'TLS'],
])

export class ClientTable {
  #authorization
  #onOpen
  #grid = byId('clients-grid', HTMLElement)
  #canvas = withRole('rowgroup', element('div', 'grid-canvas'))
  #scroll = withRole('presentation', element('div', 'grid-scroll', this.#canvas))
  #count = byId('clients-count', HTMLElement)
  #empty = byId('clients-empty', HTMLElement)
  #objection = byId('clients-objection', HTMLElement)
  #search = byId('clients-search', HTMLInputElement)
  #transport = byId('clients-transport', HTMLSelectElement)
  /** @type {Page[]} */
  #pages = []
  /** All clients of the pages. @type {Client[]} */
  #clients = []
  #connected = 0
  #incomplete = false
  /** Index of the chosen row. */
  #chosen = 0
  /** The elements of rows in sight, by index. @type {Map<number, HTMLElement>} */
  #rows = new Map()
  /** The running request. @type {AbortController | undefined} */
  #loading
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #refresh
  #isOn = false
  #draw = oncePerFrame(() => this.#drawRows())

  /**
   * @param {() => string | undefined} authorization
   * @param {(client: Client) => void} onOpen
   */
  constructor(authorization, onOpen) {
    this.#authorization = authorization
    this.#onOpen = onOpen
    this.#grid.append(gridHead(), this.#scroll)
    this.#grid.tabIndex = 0
    withRole('grid', this.#grid).setAttribute('aria-label', 'Connected MQTT clients')
    this.#scroll.addEventListener('scroll', this.#draw, { passive: true })
    new ResizeObserver(this.#draw).observe(this.#scroll)
    this.#grid.addEventListener('keydown', event => this.#onKey(event))
    this.#canvas.addEventListener('click', event => {
      const row = event.target instanceof Element ? event.target.closest('[data-index]') : null
      if (!(row instanceof HTMLElement)) return
      this.#choose(Number(row.dataset['index']))
      this.#open()
    })
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let typing
    this.#search.addEventListener('input', () => {
      clearTimeout(typing)
      typing = setTimeout(() => this.#restart(), 200)
    })
    this.#transport.addEventListener('change', () => this.#restart())
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && this.#isOn) this.reload()
    })
  }

  /** Loads the clients, and again every 3 s. */
  start() {
    if (this.#isOn) return
    this.#isOn = true
    this.#restart()
  }

  stop() {
    this.#isOn = false
    clearTimeout(this.#refresh)
    this.#loading?.abort()
    this.#loading = undefined
  }

  /** Loads the clients in sight again. */
  reload() {
    if (this.#isOn && this.#loading === undefined) this.#run(signal => this.#loadSight(signal))
  }

  #restart() {
    if (!this.#isOn) return
    this.#loading?.abort()
    this.#loading = undefined
    this.#pages = []
    this.#chosen = 0
    this.#scroll.scrollTop = 0
    this.#run(signal => this.#load(0, signal))
  }

  /** @param {(signal: AbortSignal) => Promise<void>} load */
  async #run(load) {
    clearTimeout(this.#refresh)
    const loading = new AbortController()
    this.#loading = loading
    try {
      await load(loading.signal)
      this.#objection.textContent = ''
    } catch (error) {
      if (loading.signal.aborted) return
      this.#objection.textContent =
        error instanceof Refusal ? error.message : 'The list of clients cannot be loaded at the moment.'
    }
    if (loading !== this.#loading) return
    this.#loading = undefined
    this.#drawRows()
    this.#refresh = setTimeout(() => {
      if (!document.hidden) this.reload()
    }, REFRESH_MS)
  }

  /**
   * Loads a page, and gives it the place of the former one.
   *
   * @param {number} index
   * @param {AbortSignal} signal
   */
  async #load(index, signal) {
    const cursor = index === 0 ? undefined : this.#pages[index - 1]?.next
    const query = new URLSearchParams({ limit: String(PAGE) })
    if (this.#search.value !== '') query.set('search', this.#search.value)
    if (this.#transport.value !== '') query.set('transport', this.#transport.value)
    if (cursor !== undefined) query.set('cursor', cursor)
    const response = await request(`/v1/clients?${query}`, { authorization: this.#authorization(), signal })
    /** @type {{ connected: number, clients: Client[], next?: string, incomplete?: boolean }} */
    const list = await response.json()
    if (signal.aborted) return
    this.#connected = list.connected
    this.#incomplete = list.incomplete === true
    this.#pages[index] = { cursor, next: list.next, clients: list.clients }
    if (list.next === undefined) this.#pages.length = index + 1
    this.#clients = this.#pages.flatMap(({ clients }) => clients)
  }

  /**
   * Loads the pages of the rows in sight, and further ones up to them.
   *
   * @param {AbortSignal} signal
   */
  async #loadSight(signal) {
    const { from, to } = this.#sight()
    let first = 0
    for (const [index, { clients }] of this.#pages.entries()) {
      const last = first + clients.length
      if (last >= from && first <= to) await this.#load(index, signal)
      first = last
    }
    await this.#loadUpTo(to, signal)
  }

  /**
   * @param {number} index of a row
   * @param {AbortSignal} signal
   */
  async #loadUpTo(index, signal) {
    while (this.#clients.length <= index && this.#hasMore && !signal.aborted) {
      await this.#load(this.#pages.length, signal)
      this.#drawRows()
    }
  }

  get #hasMore() {
    return this.#pages.at(-1)?.next !== undefined && this.#clients.length < MAX_CLIENTS
  }

  get #isFiltered() {
    return this.#search.value !== '' || this.#transport.value !== ''
  }

  /** Rows, of which the last ones may not be loaded. */
  get #length() {
    if (!this.#hasMore) return this.#clients.length
    return this.#isFiltered
      ? this.#clients.length + 1
      : Math.min(MAX_CLIENTS, Math.max(this.#connected, this.#clients.length + 1))
  }

  /** The rows in sight. */
  #sight() {
    const from = Math.floor(this.#scroll.scrollTop / ROW)
    return { from, to: Math.min(this.#length - 1, from + Math.ceil(this.#scroll.clientHeight / ROW)) }
  }

  #drawRows() {
    const length = this.#length
    this.#chosen = Math.max(0, Math.min(this.#chosen, length - 1))
    this.#canvas.style.height = `${length * ROW}px`
    this.#grid.setAttribute('aria-rowcount', String(length + 1))
    this.#empty.hidden = length > 0 || this.#pages.length === 0
    this.#empty.textContent = this.#isFiltered ? 'No client matches.' : 'No client is connected.'
    const { from, to } = this.#sight()
    const [first, last] = [Math.max(0, from - AROUND), Math.min(length - 1, to + AROUND)]
    /** @type {HTMLElement[]} */
    const unused = []
    for (const [index, row] of this.#rows) {
      if (index >= first && index <= last) continue
      unused.push(row)
      this.#rows.delete(index)
    }
    for (let index = first; index <= last; index++) this.#drawRow(index, unused)
    for (const row of unused) row.remove()
    const chosen = this.#rows.get(this.#chosen)
    if (chosen) this.#grid.setAttribute('aria-activedescendant', chosen.id)
    else this.#grid.removeAttribute('aria-activedescendant')
    this.#drawCount()
    if (to >= this.#clients.length && this.#hasMore && this.#loading === undefined)
      this.#run(signal => this.#loadUpTo(to, signal))
  }

  /**
   * @param {number} index
   * @param {HTMLElement[]} unused elements for rows that have none
   */
  #drawRow(index, unused) {
    let row = this.#rows.get(index)
    if (row === undefined) {
      row = unused.pop() ?? this.#newRow()
      row.setAttribute('aria-rowindex', String(index + 2))
      row.id = `client-row-${index}`
      row.dataset['index'] = String(index)
      row.style.top = `${index * ROW}px`
      this.#rows.set(index, row)
    }
    row.setAttribute('aria-selected', String(index === this.#chosen))
    const texts = cellsOf(this.#clients[index])
    for (const [column, text] of texts.entries()) {
      const cell = row.children[column]
      if (cell && cell.textContent !== text) cell.textContent = text
    }
  }

  #newRow() {
    const cells = columns.map((_name, column) =>
      withRole('gridcell', foreign('span', column >= FIRST_NUMBER ? 'number' : '', '')),
    )
    const row = withRole('row', element('div', 'grid-row', ...cells))
    this.#canvas.append(row)
    return row
  }

  #drawCount() {
    const parts = [`${count(this.#connected)} connected`]
    if (this.#isFiltered && this.#pages.length > 0)
      parts.push(`${count(this.#clients.length)}${this.#hasMore ? ' or more' : ''} found`)
    if (this.#clients.length >= MAX_CLIENTS) parts.push(`the first ${count(MAX_CLIENTS)} are listed`)
    if (this.#incomplete) parts.push('a worker does not answer')
    const text = parts.join(' · ')
    if (this.#count.textContent !== text) this.#count.textContent = text
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const inSight = Math.max(1, Math.floor(this.#scroll.clientHeight / ROW) - 1)
    /** @type {Record<string, number>} */
    const steps = {
      ArrowDown: this.#chosen + 1,
      ArrowUp: this.#chosen - 1,
      PageDown: this.#chosen + inSight,
      PageUp: this.#chosen - inSight,
      Home: 0,
      End: this.#length - 1,
    }
    const step = steps[event.key]
    if (step !== undefined) this.#choose(step)
    else if (event.key === 'Enter' || event.key === ' ' || event.key === 'Delete') this.#open()
    else return
    event.preventDefault()
  }

  /** @param {number} index */
  #choose(index) {
    this.#chosen = Math.max(0, Math.min(index, this.#length - 1))
    const top = this.#chosen * ROW
    const { scrollTop, clientHeight } = this.#scroll
    if (top < scrollTop) this.#scroll.scrollTop = top
    else if (top + ROW > scrollTop + clientHeight) this.#scroll.scrollTop = top + ROW - clientHeight
    this.#drawRows()
  }

  #open() {
    const client = this.#clients[this.#chosen]
    if (client !== undefined) this.#onOpen(client)
  }
}

const columns = ['Client id', 'User', 'Address', 'Protocol', 'Broker', 'Connected', 'From it', 'To it', 'Waiting']
/** The first column of numbers. */
const FIRST_NUMBER = 5

function gridHead() {
  const cells = columns.map((name, column) =>
    withRole('columnheader', element('span', column >= FIRST_NUMBER ? 'number' : '', name)),
  )
  const row = withRole('row', element('div', 'grid-row', ...cells))
  row.setAttribute('aria-rowindex', '1')
  return withRole('rowgroup', element('div', 'grid-head', row))
}

/**
 * @param {string} role
 * @param {HTMLElement} place
 */
function withRole(role, place) {
  place.setAttribute('role', role)
  return place
}

/** @param {Client | undefined} client undefined for one that is not loaded yet */
function cellsOf(client) {
  if (client === undefined) return ['…', '', '', '', '', '', '', '', '']
  const { clientId, address, broker, since, bytesIn, bytesOut, queue, bufferedBytes } = client
  return [
    clientId === '' ? `(connection ${client.connection})` : clientId,
    nameOf(client),
    address,
    protocolOf(client),
    broker,
    duration((Date.now() - Date.parse(since)) / 1000),
    bytes(bytesIn),
    bytes(bytesOut),
    queue === undefined ? bytes(bufferedBytes) : count(queue.messages),
  ]
}

/** @param {Client} client */
export function nameOf({ user, username }) {
  return user ?? (username === undefined || username === '' ? '' : `${username} (unchecked)`)
}

/** @param {Client} client */
export function protocolOf({ protocolVersion = 0, transport }) {
  return `${protocols.get(protocolVersion) ?? 'MQTT'} · ${transports.get(transport) ?? transport}`
}
