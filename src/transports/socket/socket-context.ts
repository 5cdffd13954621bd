import type { Rate } from '../../access/rate-limits.js'
import type { Heartbeats } from '../heartbeats.js'
import type { SharedBytes } from '../memoized-buffer.js'
import type { DeliveryOptions } from '../transport-context.js'

/** What all sockets of a gateway share. */
export interface SocketHouse extends DeliveryOptions {
  /** Has those that were sent nothing for a while told where they are. */
  readonly heartbeats: Heartbeats
  /** Has those that sent nothing for a while asked whether they are there. */
  readonly pings: Heartbeats
  /** What tells a client its place. */
  readonly places: SharedBytes
  /** Messages that one connection may publish; `undefined` for any number. */
  readonly publishes: Rate | undefined
  /** How long a client may take to answer a close frame, in milliseconds. */
  readonly closeTimeout: number
}
