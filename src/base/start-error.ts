/** The gateway cannot start: it could not bind or reach what it needs. The message says what, and what to do about it. */
export class StartError extends Error {
  override readonly name = 'StartError'
  /** EX_UNAVAILABLE of sysexits.h. */
  readonly exitCode = 69
}
