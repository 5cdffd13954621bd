import type { Client, Receipt } from './api.js'
import { Failure, failureFrom, pushOff } from './failure.js'
import type { Ask } from './link.js'
import { createReceipts } from './receipts.js'

/** For so long a publish is tried, in milliseconds; the gateway knows its key for 10 minutes. */
const publishFor = 30_000

/** What requests need of the client. */
export interface RequestHost {
  /** Where requests can be made without another connection. */
  ask(): Ask | undefined
  /** Makes one over HTTP. */
  post<T>(path: string, message: object, headers?: Record<string, string>): Promise<T>
  /** How long to wait after so many failures, in milliseconds. */
  delay(failures: number, failure: Failure): number
  readonly closed: AbortSignal
}

/** What a page says to the gateway, until it has an answer. */
export function createRequests({
  ask,
  post,
  delay,
  closed,
}: RequestHost): Pick<Client, 'publish' | 'receipt' | 'send'> {
  const insist = async <T>(request: () => Promise<T>, until = Number.POSITIVE_INFINITY): Promise<T> => {
    for (let failures = 1; ; failures++) {
      try {
        return await request()
      } catch (error) {
        const failure = failureFrom(error)
        const wait = delay(failures, failure)
        if (closed.aborted) throw new Failure('refused', 'closed')
        if (failure.kind === 'refused' || failure.reason === pushOff || Date.now() + wait > until) throw failure
        await new Promise(resolve => setTimeout(resolve, wait))
      }
    }
  }

  const overHttp = createReceipts(post)

  return {
    // Over HTTP, where the key makes one message of many tries.
    publish: (topic, payload, options) => {
      const headers = { 'idempotency-key': newKey() }
      const message = { topic, ...members(payload), ...options }
      return insist(() => post('v1/publish', message, headers), Date.now() + publishFor)
    },
    // The same receipt twice is one receipt, so it may go over whatever there is.
    receipt: (id, status, detail) => {
      const receipt = { id, status, detail }
      return insist(() => {
        const answer = ask()?.({ type: 'receipt', ...receipt }) as Promise<Receipt> | undefined
        return answer ?? overHttp(receipt)
      })
    },
    send: async payload => {
      const answer = ask()?.({ type: 'send', ...members(payload) })
      if (!answer) throw new Failure('refused', 'no-socket')
      await answer
    },
  }
}

/** 128 random bits; `randomUUID` exists on https and localhost only. */
export function newKey(): string {
  return crypto.getRandomValues(new Uint32Array(4)).join('-')
}

function members(payload: string | Uint8Array): { payload: string } | { payloadBase64: string } {
  if (typeof payload === 'string') return { payload }
  return { payloadBase64: btoa(Array.from(payload, byte => String.fromCharCode(byte)).join('')) }
}
