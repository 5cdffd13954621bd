import type { Event } from '../journal/event.js'
import type { Receipts } from '../receipts/receipts.js'
import type { Publication } from './message-json.js'

/**
 * Publishes a message whose receipts are wanted, where there is room for them: what cannot be waited for is not published.
 *
 * @param by on whose behalf they are waited for
 * @param publish publishes the message
 * @throws {Ending} rejects as `Receipts.reserve`, and then as `publish` and `ReceiptReservation.confirm`
 */
export async function withReceipts(
  receipts: Receipts,
  { message, receipt }: Publication,
  by: string,
  publish: () => Promise<Event | undefined>,
): Promise<Event | undefined> {
  const room = receipt && receipts.reserve(message.topic, receipt, by)
  try {
    const event = await publish()
    if (event) await room?.confirm(event)
    return event
  } finally {
    room?.cancel()
  }
}
