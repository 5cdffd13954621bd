import type { ShareBounds, ShareRule } from './journal.js'

/** Topics with events of clients that may not publish: socket messages, presence, receipts, and the clients themselves. */
const reservedTopics = [
  // Of one connection (PROTOCOL.md, “Sockets” and “RRR”).
  ['socket/+/in', 'socket/+/out', 'httpserver/websocket/#'],
  ['presence/#'],
  ['receipts/#'],
]

/** Where these messages are on. */
const clientTopics = ['clients/+/connected', 'clients/+/disconnected']

/** Their part of the bounds of all other topics, and their minimum events and bytes. */
const [part, minEvents, minBytes] = [1 / 16, 1024, 1024 ** 2]

/** Rules for topics of clients that may not publish: a flood of them evicts no events of other topics. */
export function reservedRules(
  { maxEvents, maxBytes, maxAge }: ShareBounds,
  options: { readonly hasClientMessages: boolean },
): ShareRule[] {
  return [...reservedTopics, ...(options.hasClientMessages ? [clientTopics] : [])].map(filters => ({
    filters,
    maxEvents: Math.min(maxEvents, Math.max(minEvents, Math.ceil(maxEvents * part))),
    maxBytes: Math.min(maxBytes, Math.max(minBytes, Math.ceil(maxBytes * part))),
    maxAge,
  }))
}
