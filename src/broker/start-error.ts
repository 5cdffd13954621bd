/** Why a broker could not be made at start: one line that says what, why, and what to do about it. */
export class BrokerStartError extends Error {
  override readonly name = 'BrokerStartError'
}
