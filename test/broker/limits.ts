/** The embedded broker's limits for tests that are about something else. */
export const limits = {
  maxPacketSize: 2 ** 24,
  maxQueuedBytes: 2 ** 20,
  maxSubscriptions: 1000,
}
