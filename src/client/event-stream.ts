/** The fields of one block of an event stream (HTML Living Standard §9.2). */
export interface StreamBlock {
  /** Its type; left out for messages. */
  readonly event?: string
  /** Left out where it only moves the id. */
  readonly data?: string
  /** The id that it sets. */
  readonly id?: string
}

/** Reads an event stream in whatever pieces it comes; each call gives the blocks that are complete. */
export function createStreamReader(): (text: string) => StreamBlock[] {
  let rest = ''
  let block: Record<string, string> = {}
  return text => {
    const blocks: StreamBlock[] = []
    rest += text
    // A long line in many pieces is looked through once.
    if (!/[\r\n]/.test(text)) return blocks
    // A CR at the end may be half of a CRLF.
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
