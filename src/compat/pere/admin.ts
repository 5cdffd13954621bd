import type { FastifyReply } from 'fastify'
import type { Caller } from '../../http/api-gate.js'
import type { Event } from '../../journal/event.js'
import type { PereContext } from './context.js'
import { newestEvents } from './newest-events.js'
import { requireListener } from './requests.js'
import { type DeviceState, deviceView, eventView, laidOut } from './views.js'

/** Events that are listed, and of which it is known who has given feedback. */
const mostEvents = 100
/** Bytes of their payloads; the newest one is listed however large it is. */
const mostBytes = 4 * 1024 ** 2
/** Devices that are listed, and feedback that is looked at for it. */
const mostDevices = 10_000

/** Answers `GET /admin/connections`: how many feeds are open, on the channels that the caller may listen to. */
export function listConnections({ permissions }: Caller, reply: FastifyReply, { feeds }: PereContext): FastifyReply {
  const counts = [...feeds.counts()].filter(([channel]) => permissions.maySubscribe(channel))
  const total = counts.reduce((sum, [, count]) => sum + count, 0)
  return answer(reply, Object.fromEntries([...counts, ['total number', total]]))
}

/** Answers `GET /admin/events/:channel`: the newest events. @throws {GatewayError} rejects as `newestEvents` */
export async function listEvents(
  caller: Caller,
  channel: string,
  reply: FastifyReply,
  { push, publishers }: PereContext,
): Promise<FastifyReply> {
  requireListener(caller, channel)
  const newest: Event[] = []
  let bytes = 0
  for await (const event of newestEvents(push.journal, channel, mostEvents)) {
    newest.push(event)
    bytes += event.payload.length
    while (bytes > mostBytes && newest.length > 1) bytes -= newest.shift()?.payload.length ?? 0
  }
  return answer(
    reply,
    newest.map(event => eventView(event, publishers.of(event.id))),
  )
}

/**
 * Answers `GET /admin/devices/:channel`: who listens, and who has given feedback to one of the newest events, with what they
 * did last. Newest first, as all feedback to all of them would be too much for one answer.
 *
 * @throws {GatewayError} rejects as `newestEvents` and `Receipts.report`
 */
export async function listDevices(
  caller: Caller,
  channel: string,
  reply: FastifyReply,
  { push, feeds }: PereContext,
): Promise<FastifyReply> {
  requireListener(caller, channel)
  const devices = new Map<string, DeviceState>()
  const add = (device: string, state: DeviceState): void => {
    const known = devices.get(device)
    if (known ? state.at >= known.at : devices.size < mostDevices) devices.set(device, state)
  }
  for (const { device, since } of push.presence.at(channel, mostDevices).listeners) {
    add(device, { op: 'feed', at: since, lastEventId: '' })
  }
  for (const { device, at, lastEventId } of feeds.on(channel)) add(device, { op: 'feed', at, lastEventId })
  const ids: string[] = []
  for await (const { id } of newestEvents(push.journal, channel, mostEvents)) ids.unshift(id)
  let left = mostDevices
  for (const id of ids) {
    if (left === 0) break
    const { receipts = [] } = (await push.receipts.report(id, { limit: left })) ?? {}
    left -= receipts.length
    for (const { device, time } of receipts) add(device, { op: 'feedback', at: time, lastEventId: id })
  }
  return answer(reply, Object.fromEntries([...devices].map(([device, state]) => [device, deviceView(state)])))
}

function answer(reply: FastifyReply, view: object): FastifyReply {
  return reply
    .header('cache-control', 'no-store')
    .type('application/json; charset=utf-8')
    .send(`${laidOut(view, 2)}\n`)
}
