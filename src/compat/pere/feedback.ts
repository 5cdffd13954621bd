import type { FastifyReply, FastifyRequest } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import type { Receipt, ReceiptStatus } from '../../receipts/receipts.js'
import type { AdmittedRequest } from '../../transports/buffered-body-routes.js'
import { deviceOf } from '../../transports/subscriptions.js'
import type { Push } from '../../transports/transport-context.js'
import type { PereContext } from './context.js'
import { deviceNamed, lastEventIds, requireSubscribe } from './requests.js'

/** Bytes of a status. */
const maxStatus = 1024
/** Bytes of the form. */
const maxForm = 16 * 1024

/** The value of the response header `Feedback`. */
type Outcome = 'kept' | 'known' | 'unknown-event'

/**
 * Answers `POST /feedback/:channel`: records a receipt. An event that is evicted or on another channel gets
 * none; the status is 200 nevertheless, the only one that PERE's clients accept.
 *
 * @throws {GatewayError} rejects with `invalid-parameter`, `topic-refused`, and as `Receipts.record`
 */
export async function takeFeedback(
  { request, caller, body }: AdmittedRequest,
  reply: FastifyReply,
  { push, channelOf, log }: PereContext,
): Promise<FastifyReply> {
  const channel = channelOf(request)
  requireSubscribe(caller, channel)
  // A generated name would not identify the device later.
  const device = deviceOf(caller.identity, deviceNamed(request) ?? '')
  if (device === '') throw new GatewayError('invalid-parameter', { hint: 'the header Device is missing' })
  const [id = ''] = lastEventIds(request)
  if (id === '') throw new GatewayError('invalid-parameter', { hint: 'the header Last-Event-Id is missing' })
  const { user } = caller.identity
  const outcome = await record(push, channel, id, { device, user, ...(await statusOf(request, body)) })
  log.debug({ channel, device, event: id, outcome }, 'Recorded feedback')
  return reply.code(200).headers({ 'cache-control': 'no-store', feedback: outcome }).send()
}

/** @throws {GatewayError} rejects with `invalid-parameter` */
async function statusOf({ headers }: FastifyRequest, body: Buffer): Promise<Pick<Receipt, 'status' | 'detail'>> {
  if (body.length > maxForm) {
    throw new GatewayError('invalid-parameter', { hint: `the form must have at most ${maxForm} bytes` })
  }
  const text = await formField(headers['content-type'], body, 'status')
  if (text === undefined) throw new GatewayError('invalid-parameter', { hint: 'the form field status is missing' })
  if (Buffer.byteLength(text) > maxStatus) {
    throw new GatewayError('invalid-parameter', { hint: `status must have at most ${maxStatus} bytes` })
  }
  return { status: isFurther(text) ? text : 'received', ...(text !== '' && { detail: text }) }
}

/** A field of a form, in any encoding that browsers send (HTML Living Standard §4.10.21.8). */
async function formField(type = '', body: Buffer, name: string): Promise<string | undefined> {
  // Any other type, or none, counts as urlencoded. Types are case-insensitive (RFC 9110 §8.3.1).
  if (!/^multipart\/form-data/i.test(type)) return new URLSearchParams(body.toString()).get(name) ?? undefined
  try {
    const form = await new Response(new Uint8Array(body), { headers: { 'content-type': type } }).formData()
    const value = form.get(name)
    return typeof value === 'string' ? value : undefined
  } catch {
    return undefined
  }
}

/** Statuses after `received`; any other text is the device's own. */
function isFurther(text: string): text is ReceiptStatus {
  return text === 'processed' || text === 'failed'
}

async function record(
  { receipts }: Push,
  channel: string,
  id: string,
  receipt: Omit<Receipt, 'time'>,
): Promise<Outcome> {
  if ((await receipts.topicOf(id)) !== channel) return 'unknown-event'
  const recorded = await receipts.record(id, receipt)
  if (!recorded) return 'unknown-event'
  return recorded.fresh ? 'kept' : 'known'
}
