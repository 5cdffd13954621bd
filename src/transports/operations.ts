import { connectionsOperation } from './connections.js'
import type { Operation } from './operation.js'
import { pollOperation } from './poll.js'
import { presenceOperations } from './presence.js'
import { publishOperations } from './publish.js'
import { receiptOperations } from './receipts.js'
import { socketOperation } from './socket.js'
import { eventsOperation } from './sse.js'

/** What the routes of the API take and answer, in the order in which a person would read it. */
export const operations: readonly Operation[] = [
  eventsOperation,
  pollOperation,
  socketOperation,
  connectionsOperation,
  ...publishOperations,
  ...receiptOperations,
  ...presenceOperations,
]
