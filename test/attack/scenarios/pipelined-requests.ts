import type { AttackTarget, Scenario } from './scenario.js'
import { answered, closed, openSocket } from './sockets.js'

const head = (start: string, headers = ''): string => `${start} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`

/** Requests by the kind of their responses; each is repeated on one connection without waiting for a response. */
export const pipelinedRequests: Readonly<Record<string, string>> = {
  file: head('GET /vendor/paho-mqtt.js'),
  range: head('GET /vendor/paho-mqtt.js', 'Range: bytes=1-70000\r\n'),
  head: head('HEAD /vendor/paho-mqtt.js'),
  missing: head('GET /missing'),
  'event-stream': head('GET /v1/events?topic=a'),
  poll: head('GET /v1/poll?topic=a'),
  feed: head('GET /couchdb/a/_changes?feed=continuous'),
  publish: `${head('POST /v1/publish?topic=pipelined', 'Content-Length: 1000\r\n')}${'x'.repeat(1000)}`,
  'unfinished-body': `${head('POST /v1/publish?topic=pipelined', 'Content-Length: 1000000\r\n')}${'x'.repeat(1000)}`,
}

/** One connection that sends the same request `count` times in one write, reads nothing but the first bytes, and leaves. */
export async function pipelineAndLeave(target: AttackTarget, request: string, count: number): Promise<void> {
  const socket = await openSocket(target.http, target.address)
  socket.write(request.repeat(count))
  await answered(socket)
  await closed(socket)
}

/** Fourteen connections with 1500 requests each of every kind, again and again. */
export const pipelinedRequestsScenario: Scenario = {
  name: 'pipelined-requests',
  run: async (target, signal) => {
    let sent = 0
    while (!signal.aborted) {
      for (const request of Object.values(pipelinedRequests)) {
        if (signal.aborted) break
        await Promise.all(Array.from({ length: 14 }, () => pipelineAndLeave(target, request, 1500)))
        sent += 14 * 1500
      }
    }
    return sent
  },
}
