import type { CloseReason, EventSink, Gap } from '../../src/hub/event-sink.js'
import type { Event } from '../../src/journal/event.js'

/** An encoder of lines that a test can read back, which counts what it is asked for. */
export function lineEncoder(): { encode: (event: Event) => Buffer; calls: () => number } {
  let calls = 0
  return {
    encode: ({ id, topic, payload, retained }) => {
      calls++
      return Buffer.from(`${JSON.stringify({ id, topic, payload: payload.toString(), retained })}\n`)
    },
    calls: () => calls,
  }
}

/** One line of it. */
export interface Line {
  readonly id: string
  readonly topic: string
  readonly payload: string
  readonly retained: boolean
}

/** A sink that keeps what it gets, and has room as the test says. */
export class TestSink implements EventSink {
  readonly writes: Buffer[] = []
  readonly gaps: Gap[] = []
  closed: { reason: CloseReason; cursor: string | undefined } | undefined
  isLive = false
  /** Whether it has room for more after a write. */
  hasRoom: () => boolean = () => true
  #resume: (() => void) | undefined
  onWrite: (data: Buffer) => void = () => {}

  write(data: Buffer): boolean {
    if (this.closed) throw new Error('written to after it was closed')
    if (this.#resume) throw new Error('written to although there was no room')
    this.writes.push(data)
    this.onWrite(data)
    return this.hasRoom()
  }

  onDrain(resume: () => void): void {
    this.#resume = resume
  }

  /** Has room again, if it had none. */
  drain(): void {
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }

  gap(gap: Gap): void {
    this.gaps.push(gap)
  }

  live(): void {
    if (this.isLive) throw new Error('live twice')
    this.isLive = true
  }

  close(reason: CloseReason, cursor: string | undefined): void {
    if (this.closed) throw new Error('closed twice')
    this.closed = { reason, cursor }
  }

  lines(): Line[] {
    const text = Buffer.concat(this.writes).toString()
    return text === ''
      ? []
      : text
          .trimEnd()
          .split('\n')
          .map(line => JSON.parse(line))
  }

  payloads(): string[] {
    return this.lines().map(({ payload }) => payload)
  }
}
