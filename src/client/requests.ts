import type { Client, Receipt } from './api.js'
import { Failure, failureFrom, pushOff } from './failure.js'
import type { SendRequest } from './link.js'
import { createReceipts } from './receipts.js'

/** How long to retry a publish, in milliseconds; the gateway remembers its key for 10 minutes. */
const publishTimeout = 30_000

export interface RequestHost {
  /** The function that sends requests over the current connection, if it can. */
  sender(): SendRequest | undefined
  /** Sends a request over HTTP. */
  post<T>(path: string, message: object, headers?: Record<string, string>): Promise<T>
  /** Delay after `failures` failures in a row, in milliseconds. */
  delay(failures: number, failure: Failure): number
  readonly closed: AbortSignal
}

/** The page's requests to the gateway, with retries. */
export function createRequests({
  sender,
  post,
  delay,
  closed,
}: RequestHost): Pick<Client, 'publish' | 'receipt' | 'send'> {
  const retry = async <T>(request: () => Promise<T>, until = Number.POSITIVE_INFINITY): Promise<T> => {
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
    // Over HTTP, whose idempotency key makes retries safe.
    publish: (topic, payload, options) => {
      const headers = { 'idempotency-key': newKey() }
      const message = { topic, ...members(payload), ...options }
      return retry(() => post('v1/publish', message, headers), Date.now() + publishTimeout)
    },
    // Receipts are idempotent, so any transport will do.
    receipt: (id, status, detail) => {
      const receipt = { id, status, detail }
      return retry(() => {
        const response = sender()?.({ type: 'receipt', ...receipt }) as Promise<Receipt> | undefined
        return response ?? overHttp(receipt)
      })
    },
    send: async payload => {
      const response = sender()?.({ type: 'send', ...members(payload) })
      if (!response) throw new Failure('refused', 'no-socket')
      await response
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
