import type { FastifyReply, FastifyRequest } from 'fastify'
import { deviceOf } from '../../transports/device.js'
import { newestCursor } from '../../transports/last-event-id.js'
import { EventStream } from '../../transports/sse/event-stream.js'
import { answerPassingRefusal, streamHeaders } from '../../transports/sse/stream-form.js'
import { beginResponse, streamWriterOf } from '../../transports/stream-writer.js'
import type { PereContext } from './context.js'
import { encodeEvent, feedStart } from './frames.js'
import { deviceNamed, lastEventIds, requireListener } from './requests.js'

const feedHeaders = {
  ...streamHeaders,
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
}

/**
 * Answers `GET /feed/:channel`. PERE's clients do not come back from anything but 200, so what will pass is 200 too, with
 * the time to come back after.
 *
 * @throws {GatewayError} rejects with what will not pass
 */
export async function openFeed(
  request: FastifyRequest,
  reply: FastifyReply,
  house: PereContext,
): Promise<FastifyReply> {
  try {
    return await open(request, reply, house)
  } catch (error) {
    return answerPassingRefusal(request, reply, error, { ...house, headers: feedHeaders })
  }
}

async function open(request: FastifyRequest, reply: FastifyReply, house: PereContext): Promise<FastifyReply> {
  const { gate, push, feeds } = house
  const caller = await gate.admit(request, reply)
  const channel = house.channelOf(request)
  requireListener(caller, channel)
  const device = deviceOf(caller.identity, deviceNamed(request))
  const headers = { ...feedHeaders, ...(isPlain(device) && { device }) }
  // The client may have gone while it was found out who it is.
  if (request.raw.socket.destroyed || request.method === 'HEAD') {
    beginResponse(reply, headers).end()
    return reply
  }
  const lastEventId = newestCursor(lastEventIds(request), push.journal)
  const { body, peer, begin } = streamWriterOf(request, reply, 2 * push.config.heartbeat)
  new EventStream(house, {
    ...{ caller, device, filters: [channel], encode: encodeEvent, body, peer },
    cursor: lastEventId,
  })
  const gone = feeds.add({ channel, device, at: house.now(), lastEventId: lastEventId ?? '' })
  peer.once('close', gone)
  // Behind another answer (pipelining), it ends before its connection does.
  if (body !== peer) body.once('close', gone)
  begin(headers, feedStart(device))
  return reply
}

/** Whether a header can carry it. */
function isPlain(device: string): boolean {
  return /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(device)
}
