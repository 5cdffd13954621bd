import type { FastifyReply } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import type { Caller } from '../../http/api-gate.js'
import { type Event, isGapMarker } from '../../journal/event.js'
import type { Journal } from '../../journal/journal.js'
import type { PereContext } from './context.js'
import { requireSubscribe } from './requests.js'
import { type DeviceState, deviceView, eventView, formatJson } from './views.js'

/** Listed events, and events whose feedback is listed. */
const maxEvents = 100
/** Bytes of their payloads; the newest event is always listed. */
const maxBytes = 4 * 1024 ** 2
/** Listed devices, and receipts that are read for them. */
const maxDevices = 10_000

/** Answers `GET /admin/connections`: the number of open feeds on the channels that the caller may subscribe to. */
export function listConnections({ permissions }: Caller, reply: FastifyReply, { feeds }: PereContext): FastifyReply {
  const counts = [...feeds.counts()].filter(([channel]) => permissions.maySubscribe(channel))
  const total = counts.reduce((sum, [, count]) => sum + count, 0)
  return sendView(reply, Object.fromEntries([...counts, ['total number', total]]))
}

/** Answers `GET /admin/events/:channel`: the newest events. @throws {GatewayError} rejects as `newestEvents` */
export async function listEvents(
  caller: Caller,
  channel: string,
  reply: FastifyReply,
  { push, publishers }: PereContext,
): Promise<FastifyReply> {
  requireSubscribe(caller, channel)
  const newest: Event[] = []
  let bytes = 0
  for await (const event of newestEvents(push.journal, channel, maxEvents)) {
    newest.push(event)
    bytes += event.payload.length
    while (bytes > maxBytes && newest.length > 1) bytes -= newest.shift()?.payload.length ?? 0
  }
  return sendView(
    reply,
    newest.map(event => eventView(event, publishers.of(event.id))),
  )
}

/**
 * Responds to `GET /admin/devices/:channel` with the listeners, and the devices with feedback to one of the newest events, with what they
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
  requireSubscribe(caller, channel)
  const devices = new Map<string, DeviceState>()
  const add = (device: string, state: DeviceState): void => {
    const known = devices.get(device)
    if (known ? state.at >= known.at : devices.size < maxDevices) devices.set(device, state)
  }
  for (const { device, since } of push.presence.at(channel, maxDevices).listeners) {
    add(device, { op: 'feed', at: since, lastEventId: '' })
  }
  for (const { device, at, lastEventId } of feeds.on(channel)) add(device, { op: 'feed', at, lastEventId })
  const ids: string[] = []
  for await (const { id } of newestEvents(push.journal, channel, maxEvents)) ids.unshift(id)
  let left = maxDevices
  for (const id of ids) {
    if (left === 0) break
    const { receipts = [] } = (await push.receipts.report(id, { limit: left })) ?? {}
    left -= receipts.length
    for (const { device, time } of receipts) add(device, { op: 'feedback', at: time, lastEventId: id })
  }
  return sendView(reply, Object.fromEntries([...devices].map(([device, state]) => [device, deviceView(state)])))
}

function sendView(reply: FastifyReply, view: object): FastifyReply {
  return reply
    .header('cache-control', 'no-store')
    .type('application/json; charset=utf-8')
    .send(`${formatJson(view, 2)}\n`)
}

/** Bounds of one read from the journal. */
const batch = { limit: 256, maxBytes: 1024 ** 2 }

/**
 * The newest events of a channel, oldest first.
 *
 * @param count maximum number
 * @throws {GatewayError} rejects with `journal-unavailable`
 */
async function* newestEvents(journal: Journal, channel: string, count: number): AsyncGenerator<Event> {
  const filters = [channel]
  const through = journal.head
  try {
    let position = await journal.latest(filters, count)
    while (position < through) {
      const read = await journal.read({ filters, after: position, through, ...batch })
      for (const event of read.events) if (!isGapMarker(event)) yield event
      position = read.position
    }
  } catch (error) {
    throw new GatewayError('journal-unavailable', { cause: error })
  }
}
