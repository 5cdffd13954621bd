import type { Receipt, ReceiptStatus } from './api.js'
import { failureFrom, failureOf, type Problem } from './failure.js'

/** Receipts in one request; the gateway takes 1000. */
const maxBatch = 500

/** What is said of an event. */
export interface SaidReceipt {
  readonly id: string
  readonly status: ReceiptStatus
  readonly detail: string | undefined
}

interface Waiting {
  readonly said: SaidReceipt
  resolve(receipt: Receipt): void
  reject(error: unknown): void
}

/**
 * Sends receipts over HTTP, one request at a time: those that are said meanwhile go together in the next, so that a page that gets
 * hundreds of events a second does not make as many requests.
 *
 * @returns sends one; rejects with a `Failure`
 */
export function createReceipts(
  post: <T>(path: string, message: object) => Promise<T>,
): (said: SaidReceipt) => Promise<Receipt> {
  const waiting: Waiting[] = []
  let sending = false

  const send = async (batch: readonly Waiting[]): Promise<void> => {
    try {
      const all = batch.map(({ said }) => said)
      const { receipts } = await post<{ receipts: (Receipt & { problem?: Problem })[] }>('v1/receipts', {
        receipts: all,
      })
      batch.forEach(({ resolve, reject }, index) => {
        const answer = receipts[index]
        if (answer && !answer.problem) resolve(answer)
        else reject(failureOf(answer?.problem ?? {}))
      })
    } catch (error) {
      // One that is not right takes all others along: then each goes by itself.
      if (batch.length > 1 && failureFrom(error).status === 400) for (const each of batch) await send([each])
      else for (const { reject } of batch) reject(error)
    }
  }
  const sendAll = async (): Promise<void> => {
    sending = true
    // Those of the same moment are among them.
    await undefined
    while (waiting.length > 0) await send(waiting.splice(0, maxBatch))
    sending = false
  }
  return said =>
    new Promise((resolve, reject) => {
      waiting.push({ said, resolve, reject })
      if (!sending) void sendAll()
    })
}
