/**
 * Properties of MQTT 5: those of a received message as lines, and those of the form that publishes. Pure.
 *
 * @typedef {object} MessageProperties as MQTT.js has them
 * @property {boolean | number} [payloadFormatIndicator]
 * @property {number} [messageExpiryInterval] seconds
 * @property {string} [contentType]
 * @property {string} [responseTopic]
 * @property {Uint8Array} [correlationData]
 * @property {Record<string, string | string[]>} [userProperties]
 *
 * @typedef {object} PropertyLine
 * @property {string} name
 * @property {string} value
 * @property {boolean} [user] whether the publisher has chosen the name
 *
 * @typedef {object} Answers the fields of the form
 * @property {string} contentType
 * @property {string} expiry seconds
 * @property {string} userProperties one “name: value” in each line
 */

/** Of one message; further ones are counted. */
const MAX_USER_PROPERTIES = 20
const MAX_CHARACTERS = 300
const MAX_HEX_BYTES = 64
/** Seconds: four bytes (MQTT 5 §3.3.2.3.3). */
const MAX_EXPIRY = 0xffff_ffff
/** Bytes of a string (MQTT 5 §1.5.4). */
const MAX_STRING_BYTES = 65_535

/**
 * @param {MessageProperties | undefined} properties
 * @returns {PropertyLine[]} at most 25, each of bounded length
 */
export function describeProperties(properties) {
  if (properties === undefined) return []
  const { contentType, messageExpiryInterval, responseTopic, correlationData, userProperties = {} } = properties
  /** @type {PropertyLine[]} */
  const lines = []
  const add = (/** @type {string} */ name, /** @type {string | undefined} */ value) => {
    if (value !== undefined) lines.push({ name, value: cut(value) })
  }
  add('Content type', contentType)
  add('Expires', messageExpiryInterval === undefined ? undefined : `in ${formatSeconds(messageExpiryInterval)}`)
  add('Response topic', responseTopic)
  add('Correlation data', correlationData && describeBytes(correlationData))
  const pairs = Object.entries(userProperties).flatMap(([name, values]) =>
    [values].flat().map(value => ({ name, value })),
  )
  for (const { name, value } of pairs.slice(0, MAX_USER_PROPERTIES)) {
    lines.push({ name: cut(name), value: cut(value), user: true })
  }
  if (pairs.length > MAX_USER_PROPERTIES) add('And', `${pairs.length - MAX_USER_PROPERTIES} more user properties`)
  return lines
}

/**
 * @param {Answers} answers
 * @returns {{ properties?: MessageProperties, objection?: string, field?: keyof Answers }} without properties where all fields are empty;
 *   `field` is the one that the objection is about
 */
export function readProperties({ contentType, expiry, userProperties }) {
  if (new TextEncoder().encode(contentType).length > MAX_STRING_BYTES)
    return { field: 'contentType', objection: 'The content type is too long.' }
  const seconds = expiry.trim() === '' ? undefined : Number(expiry)
  if (seconds !== undefined && !(Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_EXPIRY)) {
    return { field: 'expiry', objection: 'The expiry is a whole number of seconds, from 1 to 4294967295.' }
  }
  /** @type {Map<string, string[]>} */
  const user = new Map()
  for (const [index, line] of userProperties.split('\n').entries()) {
    if (line.trim() === '') continue
    const [, name = '', value = ''] = /^([^:]+):(.*)$/.exec(line) ?? []
    if (name.trim() === '')
      return { field: 'userProperties', objection: `Line ${index + 1} of the user properties is not “name: value”.` }
    user.set(name.trim(), [...(user.get(name.trim()) ?? []), value.trim()])
  }
  /** @type {MessageProperties} */
  const properties = {
    ...(contentType === '' ? {} : { contentType }),
    ...(seconds === undefined ? {} : { messageExpiryInterval: seconds }),
    ...(user.size === 0 ? {} : { userProperties: Object.fromEntries(user) }),
  }
  return Object.keys(properties).length === 0 ? {} : { properties }
}

/**
 * @param {number} seconds
 * @returns {string} such as “90 s” or “3 h”
 */
function formatSeconds(seconds) {
  for (const [unit, length] of /** @type {const} */ ([
    ['d', 86_400],
    ['h', 3_600],
    ['min', 60],
  ])) {
    if (seconds === length || seconds >= 2 * length) return `${Math.round(seconds / length)} ${unit}`
  }
  return `${seconds} s`
}

/** @param {Uint8Array} bytes */
function describeBytes(bytes) {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    if (!/\p{Cc}/u.test(text)) return text
  } catch {
    // Not UTF-8.
  }
  const hex = Array.from(bytes.subarray(0, MAX_HEX_BYTES), byte => byte.toString(16).padStart(2, '0')).join(' ')
  return bytes.length > MAX_HEX_BYTES ? `${hex} …` : hex
}

/** @param {string} text */
function cut(text) {
  return text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)} …` : text
}
