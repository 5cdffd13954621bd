import { z } from 'zod'
import { parseJsonText, readValue } from '../../http/parameters.js'
import { boundedList, messageMembers, toPublication } from '../message-json.js'
import { propertyMembers } from '../property-json.js'
import { receiptMembers } from '../receipts.js'
import { maxTopics, topicFilter } from '../subscribe-query.js'

/*
 * The messages of a client: one JSON object in each text message. Error texts follow the member's name: `topics[0] must …`.
 */

/** UTF-16 units of `ref`. */
const maxRefLength = 256

const refError = `must be a string of at most ${maxRefLength} characters, or a number`
const ref = z
  .union([z.string().max(maxRefLength), z.number()], { error: refError })
  .optional()
  .describe('Repeated in the response')

/** The client's name for a message. */
export type Ref = string | number | undefined

const topicsError = `must be a list of 1 to ${maxTopics} topic filters`

function listOfTopics<T extends z.ZodType>(topic: T) {
  return boundedList(
    z.array(topic, topicsError).min(1, topicsError).max(maxTopics, topicsError),
    maxTopics,
    topicsError,
  )
}

const subscribe = z.strictObject({
  type: z.literal('subscribe'),
  ref,
  topics: listOfTopics(topicFilter),
  cursor: z.string().max(64).optional().describe('The last position of these filters'),
})

const unsubscribe = z.strictObject({
  type: z.literal('unsubscribe'),
  ref,
  topics: listOfTopics(z.string()),
})

const publish = z
  .strictObject({ type: z.literal('publish'), ref, ...messageMembers })
  .transform(({ type, ref, ...members }, context) => ({ type, ref, ...toPublication(members, context) }))

const { payload, payloadBase64, json, qos } = messageMembers

const send = z
  .strictObject({ type: z.literal('send'), ref, payload, payloadBase64, json, qos, ...propertyMembers })
  .transform(({ type, ref, ...members }, context) => {
    // The connection knows the topic.
    const { message } = toPublication({ ...members, topic: '', retain: false, receipt: undefined }, context)
    return { type, ref, message }
  })

const receipt = z.strictObject({ type: z.literal('receipt'), ref, ...receiptMembers })

const authenticate = z.strictObject({ type: z.literal('authenticate'), ref, token: z.string().min(1, 'is missing') })

export const clientMessage = z.discriminatedUnion(
  'type',
  [subscribe, unsubscribe, publish, send, receipt, authenticate],
  {
    error: ({ code }) =>
      code === 'invalid_union'
        ? 'must be subscribe, unsubscribe, publish, send, receipt or authenticate'
        : 'must be a JSON object',
  },
)

export type ClientMessage = z.output<typeof clientMessage>

export type MessageOf<Type extends ClientMessage['type']> = Extract<ClientMessage, { type: Type }>

/**
 * Parses a message.
 *
 * @param maxValues as for `exceededJsonBound` (`limits.jsonValues`)
 * @throws {ParameterError} if it is not JSON, or exceeds a bound
 */
export function parseMessage(text: string, maxValues: number): unknown {
  return parseJsonText(text, maxValues, 'The message must be JSON')
}

/** The `ref` of a message, also if the rest is invalid. */
export function refOf(value: unknown): Ref {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, 'ref') || !('ref' in value)) return undefined
  const result = ref.safeParse(value.ref)
  return result.success ? result.data : undefined
}

/**
 * Validates a message.
 *
 * @throws {ParameterError} for the first member that is wrong
 */
export function readMessage(value: unknown): ClientMessage {
  return readValue(clientMessage, value, 'The message')
}
