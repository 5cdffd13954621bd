import type { Gap, PushEvent } from './api.js'
import type { Carrier } from './link.js'

/** How long a poll waits for events, in seconds. */
const timeout = 25

/** Events in one response; the gateway's maximum. */
const limit = 1000

/** Counts as the heartbeat interval, in seconds: a response that takes 2.5 times as long is lost. */
const heartbeat = 14

/** The response to a poll. */
export interface PollResponse {
  readonly events: readonly PushEvent[]
  readonly cursor: string
  readonly gap: Gap | null
  readonly device: string
}

/** Events over `GET /v1/poll`. The first poll does not wait, to show soon that the transport works. */
export const carryByPoll: Carrier = async link => {
  for (let first = true; ; first = false) {
    const response: PollResponse = await link.json('v1/poll', { ...link.query(), limit, timeout: first ? 0 : timeout })
    const { events, cursor, gap, device } = response
    if (first) link.onMessage('welcome', { device, heartbeat })
    if (gap) link.onMessage('gap', gap)
    for (const event of events) link.onMessage('event', event)
    link.onMessage('live', { cursor })
  }
}
