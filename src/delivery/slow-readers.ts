import type { Socket } from 'node:net'
import { Ending } from '../endings.js'
import type { Logger } from '../log.js'
import type { Metrics } from '../metrics.js'

export interface SlowReadersOptions {
  readonly log: Logger
  readonly metrics: Metrics
  /** Bytes that wait for their clients together. Default: 64 MiB. */
  readonly max?: number
}

const defaultMax = 64 * 1024 ** 2

/**
 * Bounds what answers that are complete hold while their clients do not read, where they are written to the connection
 * itself: Node's server knows nothing of those. Beyond the bound, those that have waited longest are cut off.
 */
export class SlowReaders {
  readonly #options: SlowReadersOptions
  /** With what each had to take when it began to wait, in bytes; the longest wait first. */
  readonly #waiting = new Map<Socket, number>()
  #bytes = 0

  constructor(options: SlowReadersOptions) {
    this.#options = options
  }

  /** Calls `taken` once a connection that needs to drain has done so; never, where it closes before. */
  wait(socket: Socket, taken: () => void): void {
    const { max = defaultMax } = this.#options
    const drained = (): void => {
      socket.off('close', gone)
      this.#forget(socket)
      taken()
    }
    const gone = (): void => this.#forget(socket)
    socket.once('drain', drained).once('close', gone)
    this.#waiting.set(socket, socket.writableLength)
    this.#bytes += socket.writableLength
    for (const longest of this.#waiting.keys()) {
      if (this.#bytes <= max) break
      this.#cutOff(longest)
    }
  }

  #cutOff(socket: Socket): void {
    const { log, metrics } = this.#options
    const { reason, level, text } = new Ending('client-too-slow')
    metrics.ended(reason)
    log[level]({ peer: socket.remoteAddress, reason, bytes: socket.writableLength }, text)
    this.#forget(socket)
    socket.destroy()
  }

  #forget(socket: Socket): void {
    this.#bytes -= this.#waiting.get(socket) ?? 0
    this.#waiting.delete(socket)
  }
}
