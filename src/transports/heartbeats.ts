export interface HeartbeatTarget {
  /** The tick of its last write. */
  wroteAt: number
  /** Sends a heartbeat after the silence. It must not throw. */
  beat(): void
}

/** Ticks between two heartbeats of a connection: the precision of their time. */
const ticksPerBeat = 5
/** Heartbeats of one tick of the event loop, some 2 ms. */
const beatsPerTurn = 250

/**
 * Sends heartbeats to silent connections, with one timer for all.
 */
export class Heartbeats {
  readonly #all = new Set<HeartbeatTarget>()
  readonly #interval: number
  #timer: NodeJS.Timeout | undefined
  #walk: NodeJS.Immediate | undefined

  /** The number of the tick; set as `wroteAt` with each write. */
  tick = 0

  /** @param interval milliseconds of silence; up to a fifth longer */
  constructor(interval: number) {
    this.#interval = interval
  }

  add(beating: HeartbeatTarget): void {
    beating.wroteAt = this.tick
    this.#all.add(beating)
    this.#timer ??= setInterval(() => this.#next(), this.#interval / ticksPerBeat).unref()
  }

  /** Idempotent. */
  delete(beating: HeartbeatTarget): void {
    this.#all.delete(beating)
    if (this.#all.size > 0) return
    clearInterval(this.#timer)
    clearImmediate(this.#walk)
    this.#timer = this.#walk = undefined
  }

  #next(): void {
    this.tick++
    // A walk may take longer than a tick.
    if (!this.#walk) this.#beat(this.#all.values())
  }

  #beat(rest: Iterator<HeartbeatTarget>): void {
    this.#walk = undefined
    for (let left = beatsPerTurn; left > 0; ) {
      const { value, done } = rest.next()
      if (done === true) return
      if (this.tick - value.wroteAt < ticksPerBeat) continue
      value.wroteAt = this.tick
      value.beat()
      left--
    }
    this.#walk = setImmediate(() => this.#beat(rest))
  }
}
