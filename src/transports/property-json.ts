import { z } from 'zod'
import { parseDuration } from '../config/units.js'
import type { Message } from '../mqtt/message.js'
import {
  decodeMessageProperties,
  encodeProperties,
  maxPropertyBytes,
  type Properties,
  type UserProperty,
} from '../mqtt/properties.js'
import { hasForbiddenCharacter, topicNameProblem } from '../topics/topic-syntax.js'

/*
 * The JSON of the properties of MQTT 5, of events and of published messages, for all transports. Error texts follow the member's name.
 */

/** Bytes of a string or of binary data in MQTT (MQTT 5 §1.5.4, §1.5.6). */
const maxStringBytes = 65_535

/** Bounds of the time until a message expires, in milliseconds: MQTT has 32 bits of seconds (MQTT 5 §3.3.2.3.3). */
const [minExpiry, maxExpiry] = [1000, 0xffff_ffff * 1000]

/** A string in MQTT. */
const mqttString = z.string().superRefine((text, context) => {
  if (hasForbiddenCharacter(text)) context.addIssue('must not hold control characters, or what is no character')
  else if (Buffer.byteLength(text) > maxStringBytes) context.addIssue(`must have at most ${maxStringBytes} bytes`)
})

const userProperty = z.tuple([mqttString, mqttString], { error: 'must be a list of a name and a value' })

const userProperties = z
  .preprocess(pairsOf, z.array(userProperty, { error: 'must be a list of [name, value], or an object' }))
  .describe('Pairs of a name and a value, in order; or an object whose members are strings or lists of strings')

/** The pairs of an object; any other value as it is. */
function pairsOf(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.entries(value).flatMap(([name, values]) => [values].flat().map(one => [name, one]))
}

const expiryError =
  'must be a time from 1s on, such as 30s, 5m or 1d, or a date and time to come, such as 2030-01-01T12:00:00Z'

/** When a message expires, with the text that says so: a retry has the same text, but another time. */
export interface Expiry {
  readonly text: string
  /** In milliseconds since 1970. */
  readonly time: number
}

export const expiry = z
  .string({ error: expiryError })
  .transform((text, context): Expiry => {
    const now = Date.now()
    const time = now + (parseDuration(text, maxExpiry) ?? Number.NaN) || parseDate(text)
    if (time >= now + minExpiry && time <= now + maxExpiry) return { text, time }
    context.addIssue(expiryError)
    return z.NEVER
  })
  .describe('When it expires: a time such as 30s, or a date and time; it is delivered no more then')

const dateTime = z.iso.datetime({ offset: true })

/** The time of a date and time of RFC 3339, in milliseconds since 1970; `NaN` for any other text. */
function parseDate(text: string): number {
  return dateTime.safeParse(text).success ? Date.parse(text) : Number.NaN
}

/** Strict: Node ignores wrong characters. */
export function isBase64(text: string): boolean {
  return Buffer.from(text, 'base64').toString('base64') === text
}

export const base64 = z.string().refine(isBase64, 'must be base64 (RFC 4648 §4, with padding)')

/** A topic, the right to which nobody checks: whoever answers publishes with rights of their own. */
const responseTopic = z.string().superRefine((topic, context) => {
  const problem = topicNameProblem(topic)
  if (problem !== undefined) context.addIssue(problem)
})

/** The members of a published message for its properties. */
export const propertyMembers = {
  contentType: mqttString.optional().describe('The MIME type of the payload'),
  userProperties: userProperties.optional(),
  responseTopic: responseTopic.optional().describe('The topic for answers'),
  correlationData: base64
    .refine(text => text.length <= (maxStringBytes / 3) * 4, `must have at most ${maxStringBytes} bytes`)
    .optional()
    .describe('Data that a response repeats, in base64'),
  expires: expiry.optional(),
}

/** User properties as query parameters. */
export const userPropertyParameters = z
  .preprocess(value => (typeof value === 'string' ? [value] : value), z.array(z.string()))
  .transform((texts, context): UserProperty[] => {
    const pairs = texts.map((text): UserProperty => [text.split('=', 1).join(), text.slice(text.indexOf('=') + 1)])
    const isValid = texts.every(text => text.includes('=') && mqttString.safeParse(text).success)
    if (isValid) return pairs
    context.addIssue('must be a name and a value, as in name=value, without control characters')
    return z.NEVER
  })
  .optional()
  .describe('User properties, one in each parameter: its name, =, and its value')

export interface PropertyMembers extends Omit<z.output<z.ZodObject<typeof propertyMembers>>, 'userProperties'> {
  readonly userProperties?: readonly UserProperty[] | undefined
}

/** Converts the members of a published message; `z.NEVER` after an issue where they have too many bytes. */
export function toProperties(
  { contentType, userProperties, responseTopic, correlationData, expires }: PropertyMembers,
  context: z.RefinementCtx,
): Pick<Message, 'properties' | 'expires'> {
  const given: Properties = {
    ...(contentType !== undefined && { contentType }),
    ...(responseTopic !== undefined && { responseTopic }),
    ...(correlationData !== undefined && { correlationData: Buffer.from(correlationData, 'base64') }),
    ...(userProperties !== undefined && { userProperties }),
  }
  const properties = encodeProperties(given)
  if (properties.length > maxPropertyBytes) {
    const message = `must have at most ${maxPropertyBytes} bytes in all, with the other properties`
    context.addIssue({ code: 'custom', path: [largest(given)], message })
    return z.NEVER
  }
  return { ...(properties.length > 0 && { properties }), ...(expires !== undefined && { expires: expires.time }) }
}

/** The name of the property with the most bytes. */
function largest(given: Properties): string {
  const sizes = Object.entries(given).map(
    ([name, value]) => [name, encodeProperties({ [name]: value }).length] as const,
  )
  return sizes.sort(([, one], [, other]) => other - one)[0]?.[0] ?? 'userProperties'
}

/** The members of an event for its properties and its expiry, as far as it has any. */
export function propertiesJson({ properties, expires }: Pick<Message, 'properties' | 'expires'>): object {
  if (properties === undefined && expires === undefined) return {}
  const { contentType, userProperties, responseTopic, correlationData } = properties
    ? decodeMessageProperties(properties)
    : {}
  return {
    ...(contentType !== undefined && { contentType }),
    ...(userProperties !== undefined && { userProperties }),
    ...(responseTopic !== undefined && { responseTopic }),
    ...(correlationData !== undefined && { correlationData: correlationData.toString('base64') }),
    ...(expires !== undefined && { expires: new Date(expires).toISOString() }),
  }
}

/** The same, for the description of the API. */
export const eventProperties = {
  contentType: z.string().optional().describe('The MIME type of the payload, as its publisher says'),
  userProperties: z
    .array(z.tuple([z.string(), z.string()]))
    .optional()
    .describe('User properties of MQTT 5: pairs of a name and a value, in order; names may repeat'),
  responseTopic: z.string().optional().describe('The topic for answers'),
  correlationData: z.string().optional().describe('Data that a response repeats, in base64'),
  expires: z.iso.datetime().optional().describe('When it expires; it is delivered no more then'),
}
