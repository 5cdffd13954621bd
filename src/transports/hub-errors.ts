import { type ErrorReason, GatewayError } from '../base/errors.js'
import type { CloseReason } from '../hub/event-sink.js'

const reasons: Readonly<Record<CloseReason, ErrorReason>> = {
  'too-slow': 'client-too-slow',
  'journal-unavailable': 'journal-unavailable',
  'shutting-down': 'shutting-down',
  complete: 'complete',
}

/** How a connection ends that the hub has let go of. */
export function hubError(reason: CloseReason): GatewayError {
  return new GatewayError(reasons[reason])
}
