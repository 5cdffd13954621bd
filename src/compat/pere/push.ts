import type { FastifyReply } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import { sizeOf } from '../../journal/journal.js'
import type { AdmittedRequest } from '../../transports/buffered-body-routes.js'
import { countPublishes, publisherAccount } from '../../transports/publishing.js'
import { deviceOf } from '../../transports/subscriptions.js'
import type { PereContext } from './context.js'
import { deviceNamed } from './requests.js'

/**
 * Answers `POST /push/:channel`: 204 once the body is in the journal.
 *
 * @throws {GatewayError} rejects with `invalid-parameter`, `topic-refused`, `publishing-too-fast`, and as `Publisher.publish`
 */
export async function pushEvent(
  { request, caller, body }: AdmittedRequest,
  reply: FastifyReply,
  { push, publishes, anonymousPublishes, publishers, channelOf, log }: PereContext,
): Promise<FastifyReply> {
  const topic = channelOf(request)
  const named = deviceNamed(request)
  if (!caller.permissions.mayPublish(topic)) throw new GatewayError('topic-refused')
  countPublishes({ publishes, anonymousPublishes }, caller, 1, sizeOf({ topic, payload: body }))
  const event = await push.publisher.publish(
    { topic, payload: body, qos: 1, retain: false },
    { by: publisherAccount(caller) },
  )
  const device = deviceOf(caller.identity, named ?? '')
  if (event && device !== '') publishers.note(event.id, device)
  log.debug({ channel: topic, device, event: event?.id }, 'Published an event')
  if (event) reply.header('event-id', event.id)
  return reply.code(204).header('cache-control', 'no-store').send()
}
