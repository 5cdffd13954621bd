import type { Receipt, ReceiptStatus } from './api.js'
import { failureFrom, failureOf, type Problem } from './failure.js'

/** Receipts in one request; the gateway takes 1000. */
const maxBatch = 500

/** A receipt to send. */
export interface NewReceipt {
  readonly id: string
  readonly status: ReceiptStatus
  readonly detail: string | undefined
}

interface Waiting {
  readonly receipt: NewReceipt
  resolve(receipt: Receipt): void
  reject(error: unknown): void
}

/**
 * Sends receipts over HTTP, one request at a time. Receipts created meanwhile go into the next request together, so that
 * hundreds of events per second do not cause as many requests.
 *
 * @returns sends one receipt; rejects with a `Failure`
 */
export function createReceipts(
  post: <T>(path: string, message: object) => Promise<T>,
): (receipt: NewReceipt) => Promise<Receipt> {
  const waiting: Waiting[] = []
  let sending = false

  const send = async (batch: readonly Waiting[]): Promise<void> => {
    try {
      const all = batch.map(({ receipt }) => receipt)
      const { receipts } = await post<{ receipts: (Receipt & { problem?: Problem })[] }>('v1/receipts', {
        receipts: all,
      })
      batch.forEach(({ resolve, reject }, index) => {
        const response = receipts[index]
        if (response && !response.problem) resolve(response)
        else reject(failureOf(response?.problem ?? {}))
      })
    } catch (error) {
      // One invalid receipt fails the whole batch: send each by itself.
      if (batch.length > 1 && failureFrom(error).status === 400) for (const each of batch) await send([each])
      else for (const { reject } of batch) reject(error)
    }
  }
  const sendAll = async (): Promise<void> => {
    sending = true
    // Includes receipts of the same tick.
    await undefined
    while (waiting.length > 0) await send(waiting.splice(0, maxBatch))
    sending = false
  }
  return receipt =>
    new Promise((resolve, reject) => {
      waiting.push({ receipt, resolve, reject })
      if (!sending) void sendAll()
    })
}
