import type { Rate } from '../../access/rate-limits.js'
import type { Heartbeats } from '../heartbeats.js'
import type { MemoizedBuffer } from '../memoized-buffer.js'
import type { TransportContext } from '../transport-context.js'

/** What all sockets of a gateway share. */
export interface SocketContext extends TransportContext {
  /** Has those that were sent nothing for a while told where they are. */
  readonly heartbeats: Heartbeats
  /** Has those that sent nothing for a while asked whether they are there. */
  readonly pings: Heartbeats
  /** What tells a client its place. */
  readonly cursorEvents: MemoizedBuffer
  /** Messages that one connection may publish; `undefined` for any number. */
  readonly publishes: Rate | undefined
  /** How long a client may take to answer a close frame, in milliseconds. */
  readonly closeTimeout: number
}
