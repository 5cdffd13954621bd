import { onTestFinished } from 'vitest'
import type { ConfigInput } from '../../src/config/schema.js'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { EmEventSource, type EmOptions } from './em-event-source.js'

/** A gateway to which PERE's clients speak. */
export interface Pere {
  readonly gateway: TestGateway
  /** `http://127.0.0.1:<port>/pere` */
  readonly url: string
  /** Publishes as PERE's publishers do; resolves with the answer, whose status is 204. */
  push(channel: string, body: string | Buffer, headers?: Readonly<Record<string, string>>): Promise<Response>
  /** Opens a feed, and waits until whatever is published comes to it. */
  feed(channel: string, device?: string, options?: EmOptions): Promise<EmEventSource>
  /** Sends feedback as a form. */
  feedback(channel: string, device: string, id: string, status?: string): Promise<Response>
  /** Asks as an administrator does with curl. */
  admin<T>(path: string): Promise<T>
}

export async function startPere(config: ConfigInput = {}, prefix = '/pere'): Promise<Pere> {
  const gateway = await startTestGateway({ https: { port: 'off' }, ...config })
  onTestFinished(() => gateway.close())
  return pereAt(gateway, prefix)
}

export function pereAt(gateway: TestGateway, prefix = '/pere'): Pere {
  const url = `${gateway.urls.http}${prefix}`
  const at = (path: string, channel: string): string => `${url}/${path}/${encodeURIComponent(channel)}`
  return {
    gateway,
    url,
    push: async (channel, body, headers = {}) => {
      const answer = await fetch(at('push', channel), {
        method: 'POST',
        body: new Uint8Array(Buffer.from(body)),
        headers,
      })
      if (answer.status !== 204) throw new Error(`answered ${answer.status}: ${await answer.text()}`)
      return answer
    },
    feed: async (channel, device, options = {}) => {
      const headers = { ...options.headers, ...(device !== undefined && { Device: device }) }
      const source = new EmEventSource(at('feed', channel), { ...options, headers })
      onTestFinished(() => source.close())
      // The place is behind all that was there.
      while (source.lastEventId === '' && source.reason === undefined) await new Promise(setImmediate)
      return source
    },
    feedback: (channel, device, id, status = 'rx ok') =>
      fetch(at('feedback', channel), {
        method: 'POST',
        body: new URLSearchParams({ status }),
        headers: { Device: device, 'Last-Event-Id': id },
      }),
    admin: async <T>(path: string) => (await (await fetch(`${url}/admin/${path}`)).json()) as T,
  }
}
