import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'

/** A call that a receiver was given. */
export interface ReceivedCall {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
  readonly json: { readonly rule: string; readonly dropped?: number; readonly events: readonly ReceivedEvent[] }
}

interface ReceivedEvent {
  readonly topic: string
  readonly payload?: string
  readonly [member: string]: unknown
}

/** A receiver of webhook calls that a test answers. */
export interface Receiver {
  readonly url: string
  readonly port: number
  readonly calls: ReceivedCall[]
  /** How each call is answered from now on: by a status, or by a function. */
  answer: number | ((response: ServerResponse, call: ReceivedCall) => void)
  /** Payloads of all accepted events, in order. */
  readonly payloads: string[]
  /** The most calls that were under way at the same time. */
  readonly mostAtOnce: number
  close(): Promise<void>
}

/** Starts a receiver. @param tls certificate and key, for `https://` */
export async function startReceiver(
  tls?: { readonly cert: Buffer; readonly key: Buffer },
  port = 0,
): Promise<Receiver> {
  const calls: ReceivedCall[] = []
  const payloads: string[] = []
  let [atOnce, mostAtOnce] = [0, 0]
  const onRequest: RequestListener = async (request, response) => {
    mostAtOnce = Math.max(mostAtOnce, ++atOnce)
    response.on('close', () => atOnce--)
    const body = await text(request)
    const call = { path: request.url ?? '', headers: request.headers, body, json: JSON.parse(body) }
    calls.push(call)
    const { answer } = receiver
    if (typeof answer === 'function') return answer(response, call)
    if (answer < 300) payloads.push(...call.json.events.map(({ payload }: ReceivedEvent) => payload ?? ''))
    response.writeHead(answer).end()
  }
  const server = tls ? createTlsServer(tls, onRequest) : createServer(onRequest)
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address() as AddressInfo
  const receiver: Receiver = {
    ...{ calls, payloads, port: address.port, answer: 200 },
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${address.port}/hook`,
    get mostAtOnce() {
      return mostAtOnce
    },
    close: async () => {
      if (!server.listening) return
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
  return receiver
}
