import { Ending } from '../endings.js'
import { codeOf } from '../error-code.js'
import type { Address } from './addresses.js'

/** No answer in time, of any kind. */
export class Silence extends Error {}

/** One address, and why it could not be connected to. */
export interface Failure {
  readonly address: Address
  readonly error: unknown
}

/** The ending that a connection has when every address failed; its cause names each of them and says why. */
export function endingOf(failures: readonly Failure[]): Ending {
  const told = failures.find(({ error }) => error instanceof Ending)
  if (told) return Ending.from(told.error)
  const silent = failures.every(({ error }) => error instanceof Silence)
  const reasons = failures.map(({ address, error }) => `${address.name}: ${explain(error)}`)
  const cause = new Error(reasons.join('; '), { cause: failures.at(-1)?.error })
  return new Ending(silent ? 'broker-timeout' : 'broker-refused', { cause })
}

const explanations: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'the host name is not known',
  EAI_AGAIN: 'the host name could not be looked up now',
  EHOSTUNREACH: 'the host is not reachable',
  ENETUNREACH: 'the network is not reachable',
  ENOENT: 'there is no such socket',
  EACCES: 'access is denied',
  EAGAIN: 'more connections wait there than it has places for',
  ECONNRESET: 'it reset the connection',
  EPIPE: 'it closed the connection at once',
  EPROTO: 'it does not speak TLS as expected',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak TLS',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name; see servername',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is self-signed; name it, or its CA, as ca',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate comes from an unknown CA; name that as ca',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate comes from an unknown CA; name that as ca',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate comes from an unknown CA; name that as ca',
}

/** What went wrong, for a person, with the system's own words in brackets. */
function explain(error: unknown): string {
  const first = error instanceof AggregateError ? (error.errors[0] ?? error) : error
  const explanation = explanations[codeOf(first)]
  return explanation === undefined ? messageOf(first) : `${explanation} (${messageOf(first)})`
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
