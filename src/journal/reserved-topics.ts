import type { ShareBounds, ShareRule } from './journal.js'

/** Topics that clients write to who may publish nothing, by sending, coming and going, or confirming. */
const reservedTopics = [
  // Of one connection (PROTOCOL.md, “Sockets” and “RRR”).
  ['socket/+/in', 'socket/+/out', 'httpserver/websocket/#'],
  ['presence/#'],
  ['receipts/#'],
]

/** The part of the bounds of all other topics that each of these has, and the number and bytes that it has at least. */
const [part, leastEvents, leastBytes] = [1 / 16, 1024, 1024 ** 2]

/** Rules for topics that clients write to who may publish nothing: a flood of them evicts nothing of other topics. */
export function reservedRules({ maxEvents, maxBytes, maxAge }: ShareBounds): ShareRule[] {
  return reservedTopics.map(filters => ({
    filters,
    maxEvents: Math.min(maxEvents, Math.max(leastEvents, Math.ceil(maxEvents * part))),
    maxBytes: Math.min(maxBytes, Math.max(leastBytes, Math.ceil(maxBytes * part))),
    maxAge,
  }))
}
