/** The gateway cannot start, because it could not bind an address or open a file. The message has the reason and the remedy. */
export class StartError extends Error {
  override readonly name = 'StartError'
  /** EX_UNAVAILABLE of sysexits.h. */
  readonly exitCode = 69
}
