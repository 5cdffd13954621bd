import type { FastifyReply, FastifyRequest } from 'fastify'
import { newestCursor } from '../../transports/last-event-id.js'
import { EventStream } from '../../transports/sse/event-stream.js'
import { answerPassingRefusal, streamHeaders } from '../../transports/sse/stream-format.js'
import { beginResponse, streamWriterOf } from '../../transports/stream-writer.js'
import { deviceOf } from '../../transports/subscriptions.js'
import type { PereContext } from './context.js'
import { encodeEvent, feedStart } from './frames.js'
import { deviceNamed, lastEventIds, requireSubscribe } from './requests.js'

const feedHeaders = {
  ...streamHeaders,
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
}

/**
 * Answers `GET /feed/:channel`. PERE's clients retry only after 200, so a temporary refusal is 200, too, with the time to
 * retry after.
 *
 * @throws {GatewayError} rejects with permanent refusals
 */
export async function openFeed(
  request: FastifyRequest,
  reply: FastifyReply,
  context: PereContext,
): Promise<FastifyReply> {
  try {
    return await open(request, reply, context)
  } catch (error) {
    return answerPassingRefusal(request, reply, error, { ...context, headers: feedHeaders })
  }
}

async function open(request: FastifyRequest, reply: FastifyReply, context: PereContext): Promise<FastifyReply> {
  const { gate, push, feeds } = context
  const caller = await gate.admit(request, reply)
  const channel = context.channelOf(request)
  requireSubscribe(caller, channel)
  const device = deviceOf(caller.identity, deviceNamed(request))
  const headers = { ...feedHeaders, ...(isHeaderValue(device) && { device }) }
  // The client may have disconnected during authentication.
  if (request.raw.socket.destroyed || request.method === 'HEAD') {
    beginResponse(reply, headers).end()
    return reply
  }
  const lastEventId = newestCursor(lastEventIds(request), push.journal)
  const { body, peer, begin } = streamWriterOf(request, reply, 2 * push.config.heartbeat)
  new EventStream(context, {
    ...{ caller, device, filters: [channel], encode: encodeEvent, body, peer },
    cursor: lastEventId,
  })
  const remove = feeds.add({ channel, device, at: context.now(), lastEventId: lastEventId ?? '' })
  peer.once('close', remove)
  // With pipelining, the response may end before its connection.
  if (body !== peer) body.once('close', remove)
  begin(headers, feedStart(device))
  return reply
}

/** Whether a header can contain it. */
function isHeaderValue(device: string): boolean {
  return /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(device)
}
