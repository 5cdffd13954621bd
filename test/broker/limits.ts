/** The embedded broker's limits for tests that are about something else. */
export const limits = {
  maxPacketSize: 2 ** 24,
  maxQueuedBytes: 2 ** 20,
  maxSubscriptions: 1000,
  maxQueuedMessages: 10_000,
  maxSessions: 100_000,
  maxSessionsPerUser: 100_000,
  maxAnonymousSessions: 100_000,
  maxSessionBytes: 2 ** 24,
  maxSessionsBytes: 2 ** 28,
  maxRetainedMessages: 1000,
  maxRetainedBytes: 2 ** 28,
  topicLevels: 100,
  topicLength: 65_535,
  connectTimeout: 10_000,
  sessionExpiry: 'off' as const,
}
