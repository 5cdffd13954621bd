import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'

/** What was typed or piped in cannot be used; the message says why. */
export class InputError extends Error {
  override readonly name = 'InputError'
}

/** Beyond, it is no password. */
const longestLine = 65_536

/**
 * Asks on a terminal, without showing what is typed: once for each question, in order.
 *
 * @throws {InputError} when the person gives up (Ctrl-C, Ctrl-D)
 */
export async function askHidden(questions: readonly string[], input: NodeJS.ReadStream): Promise<string[]> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  // It edits the line: Backspace, Ctrl-U, arrows. What it would show goes nowhere.
  const editor = createInterface({ input, output: nowhere, terminal: true, historySize: 0 })
  const lines = editor[Symbol.asyncIterator]()
  editor.on('SIGINT', () => editor.close())
  try {
    const answers: string[] = []
    for (const question of questions) {
      process.stderr.write(question)
      const { value, done } = await lines.next()
      process.stderr.write('\n')
      if (done === true) throw new InputError('nothing was changed')
      answers.push(value)
    }
    return answers
  } finally {
    editor.close()
  }
}

/**
 * Reads one line, without its end.
 *
 * @throws {InputError} when it is not UTF-8, or endless
 */
export async function readLine(input: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of input) {
    const end = chunk.indexOf('\n')
    chunks.push(end === -1 ? chunk : chunk.subarray(0, end))
    size += chunk.length
    if (end !== -1) break
    if (size > longestLine) throw new InputError(`the line on standard input has more than ${longestLine} bytes`)
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks))
    return text.replace(/\r$/, '')
  } catch {
    throw new InputError('the line on standard input is not UTF-8')
  }
}
