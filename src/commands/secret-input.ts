import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { UsageError } from '../config/flags.js'

/** In bytes. */
const maxLineLength = 65_536

/**
 * Prompts on a terminal without echo, once for each question, in order.
 *
 * @throws {UsageError} on Ctrl-C or Ctrl-D
 */
export async function askHidden(questions: readonly string[], input: NodeJS.ReadStream): Promise<string[]> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  // readline edits the line (Backspace, Ctrl-U, arrows); its output is discarded.
  const editor = createInterface({ input, output: nowhere, terminal: true, historySize: 0 })
  const lines = editor[Symbol.asyncIterator]()
  editor.on('SIGINT', () => editor.close())
  try {
    const answers: string[] = []
    for (const question of questions) {
      process.stderr.write(question)
      const { value, done } = await lines.next()
      process.stderr.write('\n')
      if (done === true) throw new UsageError('nothing was changed')
      answers.push(value)
    }
    return answers
  } finally {
    editor.close()
  }
}

/**
 * Reads a line, without its line end.
 *
 * @throws {UsageError} if it is not UTF-8, or longer than 64 KiB
 */
export async function readLine(input: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of input) {
    const end = chunk.indexOf('\n')
    chunks.push(end === -1 ? chunk : chunk.subarray(0, end))
    size += chunk.length
    if (end !== -1) break
    if (size > maxLineLength) throw new UsageError(`the line on standard input has more than ${maxLineLength} bytes`)
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks))
    return text.replace(/\r$/, '')
  } catch {
    throw new UsageError('the line on standard input is not UTF-8')
  }
}
