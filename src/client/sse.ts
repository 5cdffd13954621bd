import { createStreamReader } from './event-stream.js'
import { Failure } from './failure.js'
import type { Carrier } from './link.js'

/**
 * Events over `GET /v1/events`. Uses fetch, because an EventSource shows neither the status of a refusal nor the cursor of a
 * heartbeat, and cannot send `Authorization`.
 */
export const carryBySse: Carrier = async link => {
  const { body } = await link.fetch('v1/events', link.query())
  if (!body) throw new Failure()
  const source = body.getReader()
  const decoder = new TextDecoder()
  const read = createStreamReader()
  for (;;) {
    const { done, value } = await source.read()
    if (done) throw new Failure()
    link.said('bytes')
    for (const { event = 'event', data, id } of read(decoder.decode(value, { stream: true }))) {
      if (data !== undefined) link.said(event, JSON.parse(data))
      // After its event, which would not be new otherwise.
      link.said('live', { cursor: id })
    }
  }
}
