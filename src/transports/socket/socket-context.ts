import type { Rate } from '../../access/rate-limits.js'
import type { Heartbeats } from '../heartbeats.js'
import type { MemoizedBuffer } from '../memoized-buffer.js'
import type { TransportContext } from '../transport-context.js'

/** Shared by all sockets. */
export interface SocketContext extends TransportContext {
  /** Sends the cursor to silent sockets. */
  readonly heartbeats: Heartbeats
  /** Pings silent clients. */
  readonly pings: Heartbeats
  /** Encodes the message with the cursor. */
  readonly cursorEvents: MemoizedBuffer
  /** Publish rate of one connection; `undefined` for no limit. */
  readonly publishes: Rate | undefined
  /** Milliseconds until a close frame has to be answered. */
  readonly closeTimeout: number
}
