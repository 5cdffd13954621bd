/** What the broker tells about itself. Counts are since the start. */
export interface BrokerFigures {
  readonly connected: number
  readonly packetsReceived: number
  readonly packetsSent: number
  readonly publishesReceived: number
  readonly publishesSent: number
  readonly publishesDropped: number
  readonly bytesReceived: number
  readonly bytesSent: number
}

/** How often the figures are published, in milliseconds; as mosquitto's `sys_interval`. */
const interval = 10_000

/**
 * Publishes the broker's figures as `$SYS/broker/…`, retained, at once and then every 10 s, under mosquitto's names and
 * in its forms. What has not changed is not published again.
 *
 * @param read the figures as they are now
 * @param publish publishes a retained message
 * @returns ends it
 */
export function startSysTopics(
  version: string,
  read: () => BrokerFigures,
  publish: (topic: string, payload: string) => void,
): () => void {
  const start = Date.now()
  const published = new Map<string, string>()
  let maximum = 0
  const tell = (): void => {
    const figures = read()
    maximum = Math.max(maximum, figures.connected)
    const uptime = Math.floor((Date.now() - start) / 1000)
    const topics: Record<string, string | number> = {
      version: `mqway version ${version}`,
      uptime: `${uptime} seconds`,
      'clients/connected': figures.connected,
      'clients/maximum': maximum,
      'messages/received': figures.packetsReceived,
      'messages/sent': figures.packetsSent,
      'publish/messages/received': figures.publishesReceived,
      'publish/messages/sent': figures.publishesSent,
      'publish/messages/dropped': figures.publishesDropped,
      'bytes/received': figures.bytesReceived,
      'bytes/sent': figures.bytesSent,
    }
    for (const [name, value] of Object.entries(topics)) {
      const payload = String(value)
      if (published.get(name) === payload) continue
      published.set(name, payload)
      publish(`$SYS/broker/${name}`, payload)
    }
  }
  tell()
  const timer = setInterval(tell, interval)
  return () => clearInterval(timer)
}
