import type { Gap, PushEvent } from './api.js'
import type { Carrier } from './link.js'

/** How long a poll waits for events, in seconds. */
const timeout = 25

/** Events in one answer; the most that there may be. */
const limit = 1000

/** As if something were heard so often, in seconds: an answer that takes 2.5 times as long does not come any more. */
const heartbeat = 14

/** What a poll is answered. */
export interface PollAnswer {
  readonly events: readonly PushEvent[]
  readonly cursor: string
  readonly gap: Gap | null
  readonly device: string
}

/** Events over `GET /v1/poll`. The first poll does not wait, so that one knows soon that it works. */
export const carryByPoll: Carrier = async link => {
  for (let first = true; ; first = false) {
    const answer: PollAnswer = await link.json('v1/poll', { ...link.query(), limit, timeout: first ? 0 : timeout })
    const { events, cursor, gap, device } = answer
    if (first) link.said('welcome', { device, heartbeat })
    if (gap) link.said('gap', gap)
    for (const event of events) link.said('event', event)
    link.said('live', { cursor })
  }
}
