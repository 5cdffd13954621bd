import type { FastifyReply, FastifyRequest } from 'fastify'
import { EventStream } from '../../delivery/event-stream.js'
import { beginAnswer, wireOf } from '../../delivery/stream-wire.js'
import { Ending } from '../../endings.js'
import { deviceOf } from '../../push/device.js'
import { encodeEvent, encodeLater, feedStart } from './frames.js'
import type { PereHouse } from './house.js'
import { deviceNamed, lastEventIdOf, requireListener } from './requests.js'

const streamHeaders = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache',
  // nginx would otherwise keep events back until they fill a page.
  'x-accel-buffering': 'no',
}

/**
 * Answers `GET /feed/:channel`. PERE's clients do not come back from anything but 200, so what will pass is 200 too, with
 * the time to come back after.
 *
 * @throws {Ending} rejects with what will not pass
 */
export async function openFeed(request: FastifyRequest, reply: FastifyReply, house: PereHouse): Promise<FastifyReply> {
  try {
    return await open(request, reply, house)
  } catch (error) {
    if (!(error instanceof Ending) || error.retryAfter === undefined) throw error
    return answerLater(request, reply, error, error.retryAfter, house)
  }
}

async function open(request: FastifyRequest, reply: FastifyReply, house: PereHouse): Promise<FastifyReply> {
  const { gate, push, feeds } = house
  const caller = await gate.admit(request, reply)
  const channel = house.channelOf(request)
  requireListener(caller, channel)
  const device = deviceOf(caller.identity, deviceNamed(request))
  const headers = { ...streamHeaders, ...(isPlain(device) && { device }) }
  // The client may have gone while it was found out who it is.
  if (request.raw.socket.destroyed || request.method === 'HEAD') {
    beginAnswer(reply, headers).end()
    return reply
  }
  const lastEventId = lastEventIdOf(request)
  const { body, peer, begin } = wireOf(request, reply, 2 * push.config.heartbeat)
  new EventStream(house, {
    ...{ caller, device, filters: [channel], encode: encodeEvent, body, peer },
    ...(lastEventId !== '' && { cursor: lastEventId }),
  })
  const gone = feeds.add({ channel, device, at: house.now(), lastEventId })
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

function answerLater(
  request: FastifyRequest,
  reply: FastifyReply,
  ending: Ending,
  seconds: number,
  { metrics, log, language }: PereHouse,
): FastifyReply {
  const { reason, level, text, cause } = ending
  metrics.refused(reason)
  log[level]({ peer: request.ip, reason, status: 200, err: cause }, text)
  reply.headers({ ...streamHeaders, 'retry-after': String(seconds) })
  return reply.send(Buffer.concat([Buffer.from(encodeLater(seconds)), language.end(ending)]))
}
