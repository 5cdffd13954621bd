/** The gateway cannot start, because it could not bind or open something. The message says what, and what to do. */
export class StartError extends Error {
  override readonly name = 'StartError'
  /** EX_UNAVAILABLE of sysexits.h. */
  readonly exitCode = 69
}
