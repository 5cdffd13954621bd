/**
 * The displayed form of a payload: text, JSON or bytes. Pure.
 *
 * @typedef {object} Payload
 * @property {'empty' | 'text' | 'json' | 'binary'} kind
 * @property {string} text the text, or the hexadecimal bytes
 * @property {number} size bytes on the wire
 * @property {boolean} cut whether `text` shows only the beginning
 */

/** Stored bytes of a payload: 500 messages of 10 MB would be too much. */
export const KEPT_BYTES = 64 * 1024

/** Bytes of a binary payload that are shown in hexadecimal. */
const HEX_BYTES = 512

/**
 * @param {Uint8Array} bytes
 * @returns {Payload}
 */
export function describePayload(bytes) {
  const size = bytes.length
  if (size === 0) return { kind: 'empty', text: '', size, cut: false }
  const cut = size > KEPT_BYTES
  const text = asText(cut ? bytes.subarray(0, KEPT_BYTES) : bytes, cut)
  if (text === undefined) return { kind: 'binary', text: asHex(bytes), size, cut: size > HEX_BYTES }
  return { kind: !cut && isJsonStructure(text) ? 'json' : 'text', text, size, cut }
}

/**
 * @param {Uint8Array} bytes
 * @param {boolean} cut a cut may split a character: `stream` accepts exactly that
 * @returns {string | undefined} undefined if the bytes are not readable text
 */
function asText(bytes, cut) {
  let text
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes, { stream: cut })
  } catch {
    return undefined
  }
  // Valid UTF-8 by accident: control characters other than tab and line ends do not occur in text.
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code < 0x20 && code !== 0x09 && code !== 0x0a && code !== 0x0d) return undefined
  }
  return text
}

/** @param {Uint8Array} bytes */
function asHex(bytes) {
  return Array.from(bytes.subarray(0, HEX_BYTES), byte => byte.toString(16).padStart(2, '0')).join(' ')
}

/**
 * Only objects and lists are formatted.
 *
 * @param {string} text
 */
function isJsonStructure(text) {
  if (!/^\s*[[{]/.test(text)) return false
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/**
 * @param {string} text valid JSON
 * @returns {string}
 */
export function prettyJson(text) {
  return JSON.stringify(JSON.parse(text), null, 2)
}

/**
 * @param {number} bytes
 * @returns {string} such as "46 bytes" or "1.5 MiB"
 */
export function formatSize(bytes) {
  if (bytes === 1) return '1 byte'
  if (bytes < 1024) return `${bytes} bytes`
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`
}
