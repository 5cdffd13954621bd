/** The fields of one block of an event stream (HTML Living Standard §9.2). */
export interface StreamBlock {
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
