import { z } from 'zod'
import { isUserName } from '../base/identity.js'
import { duration } from '../config/units.js'
import type { Message, QoS } from '../mqtt/message.js'
import type { ReceiptRequest } from '../receipts/receipts.js'
import { topicNameProblem } from '../topics/topic-syntax.js'
import { base64, propertyMembers, toProperties } from './property-json.js'
import { unescapedPlusProblem } from './subscribe-query.js'

/*
 * The JSON of a published message, for all transports. Error texts follow the member's name: `topic must …`.
 */

/** A message with the request for its receipts. */
export interface Publication {
  readonly message: Message
  readonly receipt: ReceiptRequest | undefined
  /** When it expires, as given. */
  readonly expiryText?: string | undefined
}

/** Devices that one message may request receipts of. */
const maxAsked = 1000

const loneSurrogate = /\p{Cs}/u

/** The name of a topic to publish to. */
export const topicName = z
  .string({ error: ({ input }) => (input === undefined ? 'is missing' : 'must be the name of one topic') })
  .superRefine((topic, context) => {
    const problem = topicNameProblem(topic)
    if (problem !== undefined) context.addIssue(problem)
  })
  .describe('The name of a topic, without wildcards')

export const requestedDevices = boundedList(
  z
    .array(z.string().refine(isUserName, 'must have 1 to 255 bytes, and no control characters'))
    .min(1, 'must name a device, or present')
    .max(maxAsked)
    .transform(names => [...new Set(names)]),
  maxAsked,
  `must name at most ${maxAsked} devices`,
)

/** The time until the deadline of receipts. */
export const receiptTime = duration({ min: '100ms', max: '1d' }).describe(
  'Time until the deadline, such as 10s; at most a day',
)

const receiptRequest = z
  .strictObject({
    from: z
      .union([z.literal('present'), requestedDevices], {
        error: `must be present, or a list of 1 to ${maxAsked} devices with names of at most 255 bytes`,
      })
      .describe('Names of devices, or present for all current listeners of the topic; or both, in a list'),
    within: receiptTime,
  })
  .describe('The devices whose receipts are requested; missing ones are published on receipts/<topic> at the deadline')

const qos = z.literal([0, 1, 2], { error: 'must be 0, 1 or 2' }).default(1)

/** The members of a message. */
export const messageMembers = {
  topic: topicName,
  payload: z
    .string()
    .refine(text => !loneSurrogate.test(text), 'must be valid Unicode')
    .optional(),
  payloadBase64: base64.optional(),
  json: z.unknown().optional().describe('Any value; the payload is its JSON'),
  qos: qos.describe('The QoS of the MQTT delivery'),
  retain: z.boolean({ error: 'must be true or false' }).default(false).describe('Whether the message is retained'),
  receipt: receiptRequest.optional(),
  ...propertyMembers,
}

type MessageMembers = z.output<z.ZodObject<typeof messageMembers>>

/** Converts the members of a message, for `z.object(messageMembers).transform(toPublication)`. */
export function toPublication(members: MessageMembers, context: z.RefinementCtx): Publication {
  const { topic, retain, receipt } = members
  const payload = payloadOf(members, context)
  const message = { topic, payload, qos: toQos(members.qos), retain, ...toProperties(members, context) }
  return { message, receipt, expiryText: members.expires?.text }
}

/** The payload of a message, from one of three members. */
export function payloadOf(
  { payload, payloadBase64, json }: Pick<MessageMembers, 'payload' | 'payloadBase64' | 'json'>,
  context: z.RefinementCtx,
): Buffer {
  const given = [payload, payloadBase64, json].filter(member => member !== undefined)
  if (given.length !== 1) {
    context.addIssue({
      code: 'custom',
      path: ['payload'],
      message: 'or payloadBase64 or json must be there, one of them',
    })
    return z.NEVER
  }
  if (payload !== undefined) return Buffer.from(payload)
  if (payloadBase64 !== undefined) return Buffer.from(payloadBase64, 'base64')
  return Buffer.from(JSON.stringify(json))
}

/** @param value 0, 1 or 2 */
export function toQos(value: number): QoS {
  return value === 0 || value === 1 ? value : 2
}

/** The parameters `topic` and `qos` of a request that publishes one message. */
export const messageParameters = {
  topic: topicName
    .superRefine((topic, context) => {
      const problem = unescapedPlusProblem(topic)
      if (problem !== undefined) context.addIssue(problem)
    })
    .optional(),
  qos: z
    .enum(['0', '1', '2'], { error: 'must be 0, 1 or 2' })
    .default('1')
    .transform(digit => toQos(Number(digit)))
    .describe('The QoS of the MQTT delivery'),
}

export const messageJson = z.strictObject(messageMembers)

/** The same, converted to a publication. */
export const publicationJson = messageJson.transform(toPublication)

/**
 * A list whose length is checked before its elements.
 *
 * @param max elements
 * @param error follows the member's name
 */
export function boundedList<T extends z.ZodType>(list: T, max: number, error: string) {
  return z.preprocess((value, context) => {
    if (!Array.isArray(value) || value.length <= max) return value
    context.addIssue(error)
    return z.NEVER
  }, list)
}
