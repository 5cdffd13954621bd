import type { BatchedStore, Entry } from './batched-store.js'
import type { Receipt, ReceiptReport, ReportOptions } from './receipts.js'
import { allOf, keyOf, type ReceiptEvent, type ReceiptRecord, type RequestRecord, secondOf, upTo } from './records.js'

/** One page of a report. */
export type ReportRange = ReportOptions & { readonly limit: number }

/**
 * Reads the report on an event, as `Receipts.report`.
 *
 * @param request for its receipts, if there was one
 */
export async function readReport(
  store: BatchedStore,
  event: ReceiptEvent,
  request: RequestRecord | undefined,
  range: ReportRange,
): Promise<ReceiptReport> {
  const { id, sequence, topic, time } = event
  const asked = request ? await readPage(store, 'k', sequence, range) : []
  const requested = request && {
    from: request.from,
    count: request.asked,
    devices: asked.map(([key]) => secondOf(key)),
    deadline: request.deadline,
    missed: request.closed
      ? asked.filter(([, value]) => JSON.parse(value) !== true).map(([key]) => secondOf(key))
      : undefined,
  }
  const receipts = await readPage(store, 'r', sequence, range)
  return {
    event: { id, topic, time },
    requested,
    written: (await readPage(store, 'w', sequence, range)).map(([key]) => secondOf(key)),
    receipts: receipts.map(([key, value]) => receiptOf(secondOf(key), JSON.parse(value))),
  }
}

/** The records of a kind about an event, of one page of devices. */
async function readPage(
  store: BatchedStore,
  kind: 'k' | 'w' | 'r',
  sequence: number,
  { limit, after, maxText = Number.POSITIVE_INFINITY }: ReportRange,
): Promise<Entry[]> {
  const all = allOf(kind, sequence)
  // No device name has a NUL: this key follows that of the device directly.
  const range = after === undefined ? all : { ...all, gte: `${keyOf(kind, sequence, after)}\0` }
  const sizeOf = ([key, value]: Entry): number => secondOf(key).length + value.length
  const page: Entry[] = []
  let left = maxText
  for await (const entries of store.batches(range)) {
    page.push(...entries)
    left -= entries.reduce((size, entry) => size + sizeOf(entry), 0)
    if (page.length >= limit || left < 0) break
  }
  return upTo(page.slice(0, limit), maxText, sizeOf)
}

/** A receipt from its record. */
export function receiptOf(device: string, { status, time, detail, user }: ReceiptRecord): Receipt {
  return { device, status, time, ...(detail !== undefined && { detail }), ...(user !== undefined && { user }) }
}
