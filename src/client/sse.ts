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
    link.onMessage('bytes')
    for (const { event = 'event', data, id } of read(decoder.decode(value, { stream: true }))) {
      if (data !== undefined) link.onMessage(event, JSON.parse(data))
      // After its event, which would not be new otherwise.
      link.onMessage('live', { cursor: id })
    }
  }
}

/** The fields of one block of an event stream (HTML Living Standard §9.2). */
interface StreamBlock {
  /** Its type; `undefined` for messages. */
  readonly event?: string
  /** `undefined` if the block has only an id. */
  readonly data?: string
  /** The id that it sets. */
  readonly id?: string
}

/** Parses an event stream in chunks; each call returns the complete blocks. */
export function createStreamReader(): (text: string) => StreamBlock[] {
  let rest = ''
  let block: Record<string, string> = {}
  return text => {
    const blocks: StreamBlock[] = []
    rest += text
    // Without a line end there is nothing to split: a long line in many chunks is scanned once.
    if (!/[\r\n]/.test(text)) return blocks
    // A CR at the end may be the first half of a CRLF.
    const lines = rest.split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const [, field = '', value = ''] = /^([^:]*):? ?(.*)/s.exec(line) ?? []
      if (line === '') {
        blocks.push(block)
        block = {}
      } else block[field] = field === 'data' && field in block ? `${block[field]}\n${value}` : value
    }
    return blocks
  }
}
