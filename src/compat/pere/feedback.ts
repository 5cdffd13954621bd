import type { FastifyReply, FastifyRequest } from 'fastify'
import { GatewayError } from '../../base/errors.js'
import type { Receipt, ReceiptStatus } from '../../receipts/receipts.js'
import type { AdmittedRequest } from '../../transports/buffered-body-routes.js'
import { deviceOf } from '../../transports/device.js'
import type { Push } from '../../transports/push.js'
import type { PereContext } from './context.js'
import { deviceNamed, lastEventIds, requireListener } from './requests.js'

/** Of a status, in bytes. */
const longestStatus = 1024
/** Of the form that it is in: what is longer is something else, and takes long to read. */
const longestForm = 16 * 1024

/** What became of a feedback, as the header `Feedback` says. */
type Outcome = 'kept' | 'known' | 'unknown-event'

/**
 * Answers `POST /feedback/:channel`: a receipt with what the device says. Of an event that is not there any more, or of
 * another channel, nothing is kept; the answer is 200 all the same, as PERE's clients know no other.
 *
 * @throws {GatewayError} rejects with `invalid-parameter`, `topic-refused`, and as `Receipts.record`
 */
export async function takeFeedback(
  { request, caller, body }: AdmittedRequest,
  reply: FastifyReply,
  { push, channelOf, log }: PereContext,
): Promise<FastifyReply> {
  const channel = channelOf(request)
  requireListener(caller, channel)
  // Under a name that is made for this one request, it would be nobody's.
  const device = deviceOf(caller.identity, deviceNamed(request) ?? '')
  if (device === '') throw new GatewayError('invalid-parameter', { hint: 'the header Device is missing' })
  const [id = ''] = lastEventIds(request)
  if (id === '') throw new GatewayError('invalid-parameter', { hint: 'the header Last-Event-Id is missing' })
  const { user } = caller.identity
  const outcome = await record(push, channel, id, { device, user, ...(await statusOf(request, body)) })
  log.debug({ channel, device, event: id, outcome }, 'There was feedback')
  return reply.code(200).headers({ 'cache-control': 'no-store', feedback: outcome }).send()
}

/** @throws {GatewayError} rejects with `invalid-parameter` */
async function statusOf({ headers }: FastifyRequest, body: Buffer): Promise<Pick<Receipt, 'status' | 'detail'>> {
  if (body.length > longestForm) {
    throw new GatewayError('invalid-parameter', { hint: `the form must have at most ${longestForm} bytes` })
  }
  const text = await formField(headers['content-type'], body, 'status')
  if (text === undefined) throw new GatewayError('invalid-parameter', { hint: 'the form field status is missing' })
  if (Buffer.byteLength(text) > longestStatus) {
    throw new GatewayError('invalid-parameter', { hint: `status must have at most ${longestStatus} bytes` })
  }
  return { status: isFurther(text) ? text : 'received', ...(text !== '' && { detail: text }) }
}

/** A field of a form, as any kind that browsers send (HTML Living Standard §4.10.21.8). */
async function formField(type = '', body: Buffer, name: string): Promise<string | undefined> {
  // Whoever names no type, or another one, means the usual one. In any case of letters (RFC 9110 §8.3.1).
  if (!/^multipart\/form-data/i.test(type)) return new URLSearchParams(body.toString()).get(name) ?? undefined
  try {
    const form = await new Response(new Uint8Array(body), { headers: { 'content-type': type } }).formData()
    const value = form.get(name)
    return typeof value === 'string' ? value : undefined
  } catch {
    return undefined
  }
}

/** The words for what comes after having received it; all others are a device's own. */
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
