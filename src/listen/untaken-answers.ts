import type { ServerResponse } from 'node:http'
import { constants, type Http2ServerResponse } from 'node:http2'
import { Ending } from '../endings.js'
import type { Logger } from '../log.js'
import type { Metrics } from '../metrics.js'

/** An answer of either version of HTTP. */
export type Answer = ServerResponse | Http2ServerResponse

/** How often it is looked at what waits, in milliseconds; and how much may wait by default, in bytes. */
const [interval, defaultMax] = [250, 64 * 1024 ** 2]

/** What bounds answers that are not taken. */
export interface UntakenOptions {
  readonly log: Logger
  readonly metrics: Metrics
  /** Bytes of complete answers that their clients have not taken yet, together. Default: 64 MiB. */
  readonly maxUntaken?: number | undefined
}

/**
 * Bounds what answers that are complete hold while their clients do not read. Whoever makes an answer is done with it by
 * then, and counts it no more; and one connection may have a hundred of them in streams of HTTP/2, or pipelined: twenty
 * connections came to 1 GB. Beyond the bound, those that have waited longest are cut off.
 */
export class UntakenAnswers {
  readonly #options: UntakenOptions
  /** In the order of their requests. */
  readonly #open = new Set<Answer>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: UntakenOptions) {
    this.#options = options
  }

  /** An answer will be made. */
  add(answer: Answer): void {
    this.#open.add(answer)
    this.#timer ??= setInterval(() => this.#look(), interval).unref()
  }

  /** It is over. */
  delete(answer: Answer): void {
    this.#open.delete(answer)
  }

  #look(): void {
    let bytes = 0
    const untaken: Answer[] = []
    for (const answer of this.#open) {
      // One that waited for others on its connection (pipelining) is not told of its end.
      if (wireOf(answer).destroyed) this.#open.delete(answer)
      else if (answer.writableEnded && answer.writableLength > 0) {
        untaken.push(answer)
        bytes += answer.writableLength
      }
    }
    const { maxUntaken = defaultMax } = this.#options
    for (const answer of untaken) {
      if (bytes <= maxUntaken) break
      bytes -= answer.writableLength
      this.#cutOff(answer)
    }
    if (this.#open.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #cutOff(answer: Answer): void {
    const { log, metrics } = this.#options
    const { reason, level, text } = new Ending('client-too-slow')
    metrics.ended(reason)
    log[level]({ peer: answer.req.socket.remoteAddress, reason, bytes: answer.writableLength }, text)
    if ('stream' in answer) answer.stream.close(constants.NGHTTP2_CANCEL)
    else answer.req.socket.destroy()
  }
}

/** What the bytes of an answer go over. */
function wireOf(answer: Answer): { readonly destroyed: boolean } {
  return 'stream' in answer ? answer.stream : answer.req.socket
}
