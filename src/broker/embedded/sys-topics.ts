/** Figures of the broker since its start. */
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

/** Interval of publishing, in milliseconds; as mosquitto's `sys_interval`. */
const interval = 10_000

/**
 * Publishes the broker's figures as retained `$SYS/broker/…` messages, at once and every 10 s, with mosquitto's names and formats. Unchanged
 * figures are not published again.
 *
 * @param read returns the current figures
 * @param publish publishes a retained message
 * @returns stops it
 */
export function startSysTopics(
  version: string,
  read: () => BrokerFigures,
  publish: (topic: string, payload: string) => void,
): () => void {
  const start = Date.now()
  const published = new Map<string, string>()
  let maximum = 0
  const publishChanges = (): void => {
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
  publishChanges()
  const timer = setInterval(publishChanges, interval)
  return () => clearInterval(timer)
}
