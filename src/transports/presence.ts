import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { readQuery } from '../http/parameters.js'
import { listenerTransports, type PresentListener } from '../presence/presence.js'
import type { Operation } from './operation.js'
import { count, listenFilterProblem, unescapedPlusProblem } from './subscribe-query.js'
import { authorizeSubscribe } from './subscriptions.js'
import type { TransportContext } from './transport-context.js'

const url = '/v1/presence'

/** Listeners or filters of one response. */
const maxListed = 1000

/** UTF-16 units of the filters of one response: those of a thousand listeners could be a gigabyte. */
const maxListedFilters = 2 ** 20

const query = z.object({
  topic: z
    .string({ error: 'must come once' })
    .superRefine((filter, context) => {
      const problem = listenFilterProblem(filter) ?? unescapedPlusProblem(filter)
      if (problem !== undefined) context.addIssue(problem)
    })
    .optional()
    .describe('A topic name, for its listeners with any filter; or a filter, for the listeners with exactly this one'),
  limit: count(1, maxListed).default(100).describe('Maximum number of listed listeners, or filters'),
})

const time = z.iso.datetime()

const listener = z.object({
  device: z.string(),
  user: z.string().optional().describe('Left out if unknown'),
  transport: z.enum(listenerTransports),
  topics: z.array(z.string()).describe('Its matching filters'),
  connections: z.int().min(0).describe('Its open connections; 0 in the grace time, and between two polls'),
  since: time,
  lastSeen: time.describe('Time of its last activity'),
})

const listeners = z.object({
  topic: z.string(),
  count: z.int().min(0).describe('Number of all listeners, listed or not'),
  listeners: z.array(listener),
})

const counts = z.object({
  count: z.int().min(0).describe('Number of all listeners'),
  topics: z.record(z.string(), z.int().min(1)).describe('Number of listeners of each filter, in descending order'),
})

/** `GET /v1/presence` */
export const presenceOperations: readonly Operation[] = [
  {
    method: 'get',
    path: url,
    summary: 'The current listeners of a topic; without topic, the number of listeners of each filter.',
    query,
    responses: {
      200: { description: 'The listeners', schema: z.union([listeners, counts]) },
      400: { description: 'A parameter is invalid' },
      403: { description: 'No permission for the topic; without topic: for #' },
    },
  },
]

/** Adds `GET /v1/presence`. The caller must be permitted to subscribe to the topic. */
export function registerPresence(app: FastifyInstance, { gate, push }: Pick<TransportContext, 'gate' | 'push'>): void {
  app.get(url, async (request, reply) => {
    const { permissions } = await gate.admit(request, reply)
    const { topic, limit } = readQuery(request, query)
    authorizeSubscribe(permissions, [topic ?? '#'])
    reply.header('cache-control', 'no-store')
    if (topic === undefined) {
      const all = push.presence.counts(limit)
      return { count: all.count, topics: Object.fromEntries(all.topics) } satisfies z.output<typeof counts>
    }
    const found = push.presence.at(topic, limit)
    return { topic, count: found.count, listeners: listed(found.listeners) } satisfies z.output<typeof listeners>
  })
  gate.registerOtherMethods(app, { url, allowed: ['GET', 'HEAD'] })
}

function listed(found: readonly PresentListener[]): z.output<typeof listener>[] {
  const list: z.output<typeof listener>[] = []
  let size = 0
  for (const { device, user, transport, topics, connections, since, lastSeen } of found) {
    size += topics.reduce((sum, topic) => sum + topic.length, 0)
    if (size > maxListedFilters && list.length > 0) break
    list.push({
      device,
      ...(user !== undefined && { user }),
      transport,
      topics: [...topics],
      connections,
      since: new Date(since).toISOString(),
      lastSeen: new Date(lastSeen).toISOString(),
    })
  }
  return list
}
