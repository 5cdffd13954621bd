import { connectionsOperations } from './connections.js'
import type { Operation } from './operation.js'
import { pollOperations } from './poll/poll.js'
import { presenceOperations } from './presence.js'
import { publishOperations } from './publish.js'
import { receiptOperations } from './receipts.js'
import { socketOperations } from './socket/socket.js'
import { eventsOperations } from './sse/sse.js'

/** What the routes of the API take and answer, in the order in which a person would read it. */
export const operations: readonly Operation[] = [
  ...eventsOperations,
  ...pollOperations,
  ...socketOperations,
  ...connectionsOperations,
  ...publishOperations,
  ...receiptOperations,
  ...presenceOperations,
]
