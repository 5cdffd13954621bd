/** One request, as the access log has it. */
export interface AccessRecord {
  /** The id of the request, as in `X-Request-ID`. */
  readonly id: string
  /** The client's address. */
  readonly peer: string
  readonly user: string | undefined
  /** When it came in. */
  readonly time: Date
  /** `undefined` for bytes that are no request. */
  readonly method: string | undefined
  /** The request target with its query. */
  readonly target: string
  /** `HTTP/1.1` */
  readonly protocol: string
  readonly host: string | undefined
  readonly referer: string | undefined
  readonly userAgent: string | undefined
  /** Whether the client's connection is encrypted. */
  readonly secure: boolean
  /** 499 where the client left before a response, as nginx has it. */
  readonly status: number
  /** Of the body; of a WebSocket, of all bytes that were sent. */
  readonly bytes: number
  /** Milliseconds until the response, the stream or the connection had ended. */
  readonly duration: number
}

export type FormatAccess = (record: AccessRecord) => string

/** UTF-16 code units of one field. */
const maxField = 2048

/** The formats of `accessLog.format`: each makes one line without its end, of printable ASCII characters. */
export const accessFormats = { common: formatCommon, combined: formatCombined, json: formatJson } satisfies Record<
  string,
  FormatAccess
>

/** The Common Log Format: `%h - %u %t "%r" %>s %b`, with the time in UTC. */
function formatCommon({ peer, user, time, method, target, protocol, status, bytes }: AccessRecord): string {
  const name = user === undefined ? '-' : escaped(Buffer.from(user).toString('latin1')).replaceAll(' ', '\\x20')
  const request = method === undefined ? '-' : escaped(`${method} ${withoutSecrets(target)} ${protocol}`)
  return `${peer} - ${name} [${formatTime(time)}] "${request}" ${status} ${bytes === 0 ? '-' : bytes}`
}

function formatCombined(record: AccessRecord): string {
  const { referer, userAgent } = record
  const from = referer === undefined ? '-' : escaped(withoutSecrets(referer))
  return `${formatCommon(record)} "${from}" "${userAgent === undefined ? '-' : escaped(userAgent)}"`
}

function formatJson(record: AccessRecord): string {
  const { id, peer, user, time, method, target, protocol, host, referer, userAgent, secure, status } = record
  const shown = {
    ...{ time, id, peer, user, method },
    url: method === undefined ? undefined : shortened(withoutSecrets(target)),
    ...{ protocol, host: host && shortened(host), secure, status, bytes: record.bytes },
    ms: Math.round(record.duration * 10) / 10,
    referer: referer && shortened(withoutSecrets(referer)),
    userAgent: userAgent && shortened(userAgent),
  }
  return JSON.stringify(shown).replaceAll(/[^ -~]/g, unit => `\\u${hex(unit, 4)}`)
}

const months = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')

function formatTime(time: Date): string {
  const [date = '', clock = ''] = time.toISOString().split('T')
  const [year, month, day] = date.split('-')
  return `${day}/${months[Number(month) - 1]}/${year}:${clock.slice(0, 8)} +0000`
}

/** As Apache and nginx do: quotes and backslashes with a backslash, all other bytes that are not printable as `\xhh`. */
function escaped(bytes: string): string {
  return shortened(bytes).replaceAll(/[^ !#-[\]-~]/g, byte => {
    if (byte === '"' || byte === '\\') return `\\${byte}`
    return `\\x${hex(byte, 2)}`
  })
}

function hex(unit: string, digits: number): string {
  return unit.charCodeAt(0).toString(16).padStart(digits, '0')
}

function shortened(text: string): string {
  return text.length <= maxField ? text : `${text.slice(0, maxField)}...`
}

/** Words of parameter names whose values are secrets, or may be: tickets and tokens of mqway, and what pages pass to each other. */
const secretWords = new Set(
  'apikey assertion auth authorization bearer code cookie credential credentials jwt key nonce otp pass passphrase passwd password pin pwd secret session sessionid sid sig signature ticket token'.split(
    ' ',
  ),
)

/** The same at the end of a word, as in `idtoken`. */
const secretEnds = /(?:ticket|token|passw(?:or)?d|secret|signature|credentials?|apikey|sessionid)$/

/** The beginning of a JSON web token: `{"` in base64. */
const tokenStart = /^eyJ/

/**
 * Redacts the values of parameters that may be secrets in a URL or a request target, and a user name and password before its host. A fragment is left
 * out.
 */
export function withoutSecrets(url: string): string {
  const [whole = ''] = url.split('#', 1)
  const start = whole.indexOf('?')
  const path = (start === -1 ? whole : whole.slice(0, start)).replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/@]*@/i, '$1')
  if (start === -1) return path
  return `${path}?${whole.slice(start + 1).replaceAll(/[^&;]+/g, withoutSecret)}`
}

function withoutSecret(pair: string): string {
  const at = pair.indexOf('=')
  if (at === -1) return tokenStart.test(pair) ? '[redacted]' : pair
  const name = decoded(pair.slice(0, at))
  const isSecret = name === undefined || isSecretName(name) || tokenStart.test(pair.slice(at + 1))
  return isSecret ? `${pair.slice(0, at)}=[redacted]` : pair
}

function isSecretName(name: string): boolean {
  const words = name
    .replaceAll(/([a-z])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z0-9]+/)
  return words.some(word => secretWords.has(word) || secretEnds.test(word))
}

/** `undefined` for an invalid escape, behind which anything may be hidden. */
function decoded(name: string): string | undefined {
  try {
    return decodeURIComponent(name.replaceAll('+', ' '))
  } catch {
    return undefined
  }
}
