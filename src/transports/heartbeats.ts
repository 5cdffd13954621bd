/** Something that is to show that it is alive. */
export interface HeartbeatTarget {
  /** The tick in which it last wrote. */
  wroteAt: number
  /** It has been silent for too long. It must not throw. */
  beat(): void
}

/** Ticks between two heartbeats: how exact their time is. */
const ticksPerBeat = 5
/** Heartbeats that are written in one turn of the event loop, which takes some 2 ms. */
const beatsPerTurn = 250

/**
 * Has all that are silent for a time show that they are alive: one timer for all of them, because ten thousand of them
 * would cost more than what they stand for.
 */
export class Heartbeats {
  readonly #all = new Set<HeartbeatTarget>()
  readonly #interval: number
  #timer: NodeJS.Timeout | undefined
  #walk: NodeJS.Immediate | undefined

  /** The number of the tick; whoever writes takes it down. */
  tick = 0

  /** @param interval milliseconds of silence; they get a fifth longer at most */
  constructor(interval: number) {
    this.#interval = interval
  }

  get size(): number {
    return this.#all.size
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
    // A walk that takes longer than a tick is not overtaken by another one.
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
