import { EventReader, type ListenerEvent } from './event-reader.js'

export interface ListenerOptions {
  /** The output of supervisord. */
  readonly input: AsyncIterable<Buffer>
  /** Writes to supervisord; nothing else may write there. */
  readonly write: (text: string) => void
  /** Handles an event; after `false`, supervisord sends it again. */
  readonly handle: (event: ListenerEvent) => Promise<boolean>
  /** Whether the listener stops: it then leaves a failed event unanswered, and supervisord keeps it. */
  readonly stopped: () => boolean
}

/**
 * Runs the protocol with supervisord until that closes its output.
 *
 * @throws {ProtocolError} if the input violates the protocol
 */
export async function listen({ input, write, handle, stopped }: ListenerOptions): Promise<void> {
  const reader = new EventReader()
  write('READY\n')
  for await (const chunk of input) {
    for (const event of reader.push(chunk)) {
      const done = await handle(event)
      if (!done && stopped()) return
      write(done ? 'RESULT 2\nOK' : 'RESULT 4\nFAIL')
      write('READY\n')
    }
  }
}
