import type { Http2Session, ServerHttp2Stream } from 'node:http2'
import { TickBudget, type TickShare } from '../base/tick-budget.js'

/** A request whose stream is open, and the function that handles it. */
interface Queued {
  readonly stream: ServerHttp2Stream
  readonly handle: () => void
}

/**
 * Starts the requests of HTTP/2 after the read that contained them, for a part of each iteration of the event loop, one of each connection
 * in turn. A stream that its client has reset by then is dropped: a thousand HEADERS and RST_STREAM frames in one write (“rapid reset”,
 * CVE-2023-44487) cause neither authentication nor subscriptions.
 *
 * SETTINGS_MAX_CONCURRENT_STREAMS bounds the waiting streams of one connection, except those reset within one read.
 */
export class StreamQueue {
  /** The connection whose request starts next first. */
  readonly #sessions = new Map<Http2Session, Queued[]>()
  readonly #share: TickShare

  /** @param share its part of each iteration of the event loop */
  constructor(share: TickShare = new TickBudget().open()) {
    this.#share = share
  }

  /** Calls `handle` in a later iteration of the event loop, unless the stream is closed by then. */
  add(stream: ServerHttp2Stream, handle: () => void): void {
    const { session } = stream
    if (session === undefined || stream.destroyed) return
    if (this.#sessions.size === 0) {
      this.#share.isBusy = true
      setImmediate(this.#run)
    }
    const queue = this.#sessions.get(session)
    if (queue) queue.push({ stream, handle })
    else this.#sessions.set(session, [{ stream, handle }])
  }

  readonly #run = (): void => {
    const end = performance.now() + this.#share.length
    for (const [session, queue] of this.#sessions) {
      const next = queue.find(({ stream }) => !stream.destroyed && !stream.closed)
      this.#sessions.delete(session)
      if (!next) continue
      const rest = queue.slice(queue.indexOf(next) + 1)
      if (rest.length > 0) this.#sessions.set(session, rest)
      next.handle()
      if (performance.now() >= end) break
    }
    if (this.#sessions.size > 0) setImmediate(this.#run)
    else this.#share.isBusy = false
  }
}
