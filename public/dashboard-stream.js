/**
 * The event stream of the dashboard (`GET /v1/dashboard/events`), over `fetch`: an EventSource cannot send credentials, and does not tell the
 * status of a refusal.
 *
 * @typedef {object} Welcome
 * @property {string} version
 * @property {number} interval seconds between two snapshots
 * @property {boolean} push whether the gateway has a journal
 * @property {number} maxConnections
 * @property {number} [maxEvents] of the journal
 * @property {Record<string, string>} reasons sentences by reason
 *
 * @typedef {object} Snapshot
 * @property {string} time
 * @property {{ ready: boolean, detail?: string, brokers: { broker: string, roundTripMs?: number, detail?: string }[] }} health
 * @property {Record<string, number>} [metrics] left out if a worker does not answer
 *
 * @typedef {object} Topic
 * @property {string} topic
 * @property {number} messages
 * @property {number} bytes
 * @property {number} rate
 * @property {string} time
 * @property {number} size
 * @property {string} [payload]
 * @property {string} [payloadBase64]
 *
 * @typedef {{ phase: 'connecting' }
 *   | { phase: 'open' }
 *   | { phase: 'waiting', sentence: string, retryAt: number }
 *   | { phase: 'refused', sentence: string, status: number }} StreamState
 *
 * @typedef {object} StreamHandlers
 * @property {(welcome: Welcome) => void} onWelcome
 * @property {(snapshot: Snapshot) => void} onSnapshot
 * @property {(topics: Topic[]) => void} onTopics
 * @property {(state: StreamState) => void} onState
 * @property {() => string | undefined} authorization the header for requests
 */

import { backoff } from './backoff.js'
import { asSentence } from './close-reasons.js'

/** Silence after which the stream is dead, in milliseconds: snapshots come every 2 s, and take up to 8 s with workers that do not answer. */
const SILENCE_MS = 15_000
/** Characters of one event. */
const MAX_EVENT = 4 * 2 ** 20

/** An answer with another status than 200. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {string} sentence
   * @param {number | undefined} retryAfter in seconds
   */
  constructor(status, sentence, retryAfter) {
    super(sentence)
    this.status = status
    this.retryAfter = retryAfter
  }
}

/**
 * Makes a request to the gateway.
 *
 * @param {string} url
 * @param {{ method?: string, authorization: string | undefined, signal?: AbortSignal }} options
 * @throws {Refusal} for another status than 2xx
 */
export async function request(url, { method = 'GET', authorization, signal }) {
  const headers = authorization === undefined ? {} : { authorization }
  const response = await fetch(url, { method, headers, cache: 'no-store', ...(signal && { signal }) })
  if (response.ok) return response
  const problem = await response.json().catch(() => ({}))
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
  throw new Refusal(
    response.status,
    asSentence(String(problem.detail ?? `The gateway answered ${response.status} ${response.statusText}`.trim())),
    Number.isFinite(seconds) ? seconds : undefined,
  )
}

/** Keeps the stream open: it connects again after each end, unless the gateway refuses it. */
export class DashboardStream {
  #handlers
  #failures = 0
  /** @type {AbortController | undefined} */
  #current
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry

  /** @param {StreamHandlers} handlers */
  constructor(handlers) {
    this.#handlers = handlers
  }

  /** Connects now, and drops the open stream. */
  connect() {
    clearTimeout(this.#retry)
    this.#current?.abort()
    const current = new AbortController()
    this.#current = current
    this.#handlers.onState({ phase: 'connecting' })
    this.#run(current).catch(error => {
      if (current === this.#current) this.#ended(error)
    })
  }

  /** @param {AbortController} current */
  async #run(current) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let silence
    const alive = () => {
      clearTimeout(silence)
      silence = setTimeout(() => current.abort(), SILENCE_MS)
    }
    try {
      alive()
      const authorization = this.#handlers.authorization()
      const response = await request('/v1/dashboard/events', { authorization, signal: current.signal })
      if (response.body === null) throw new Error('The response has no body.')
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      let rest = ''
      for (;;) {
        const { done, value } = await reader.read()
        if (done) throw new Error('The gateway has closed the stream.')
        alive()
        rest += value
        const blocks = rest.split('\n\n')
        rest = blocks.pop() ?? ''
        if (rest.length > MAX_EVENT) throw new Error('An event of the stream is too large.')
        for (const block of blocks) if (current === this.#current) this.#take(block)
      }
    } finally {
      clearTimeout(silence)
      current.abort()
    }
  }

  /** @param {string} block the lines of one event */
  #take(block) {
    const { onWelcome, onSnapshot, onTopics, onState } = this.#handlers
    const name = /^event: (.*)$/m.exec(block)?.[1]
    const data = /^data: (.*)$/m.exec(block)?.[1]
    if (name === undefined || data === undefined) return
    const value = JSON.parse(data)
    if (name === 'welcome') onWelcome(value)
    else if (name === 'topics') onTopics(value)
    else if (name === 'end') throw new Error(asSentence(String(value.detail ?? value.reason)))
    else if (name === 'snapshot') {
      if (this.#failures > 0 || onState) onState({ phase: 'open' })
      this.#failures = 0
      onSnapshot(value)
    }
  }

  /** @param {unknown} error */
  #ended(error) {
    const { onState } = this.#handlers
    if (error instanceof Refusal && error.status < 500 && error.status !== 429) {
      onState({ phase: 'refused', sentence: error.message, status: error.status })
      return
    }
    this.#failures++
    const wait = Math.max(backoff(this.#failures), (error instanceof Refusal ? (error.retryAfter ?? 0) : 0) * 1000)
    onState({ phase: 'waiting', sentence: sentenceOf(error), retryAt: Date.now() + wait })
    this.#retry = setTimeout(() => this.connect(), wait)
  }
}

/** @param {unknown} error */
function sentenceOf(error) {
  if (error instanceof TypeError) return 'The gateway cannot be reached.'
  if (error instanceof DOMException) return 'The gateway was silent for too long.'
  return error instanceof Error ? error.message : String(error)
}
