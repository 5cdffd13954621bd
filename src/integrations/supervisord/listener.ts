import { EventReader, type ListenerEvent } from './event-reader.js'

/** What an event listener needs. */
export interface ListenerOptions {
  /** What supervisord writes. */
  readonly input: AsyncIterable<Buffer>
  /** What it reads, and nothing else may be written there. */
  readonly write: (text: string) => void
  /** Whether an event is done with; if not, supervisord keeps it and sends it again. */
  readonly handle: (event: ListenerEvent) => Promise<boolean>
  /** Whether it is over: what has not been answered by then is not, and supervisord keeps it. */
  readonly stopped: () => boolean
}

/**
 * Speaks with supervisord until that closes its side.
 *
 * @throws {ProtocolError} where it says what is not of the protocol
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
