/**
 * A payload that may be kept: a copy where it is a small part of a larger block, such as the 64 KiB that Node reads at a
 * time, which would be kept with it. Small copies share Node's pool of 8 KiB with their neighbours, which are kept as
 * long: that takes 220 bytes less for each than memory of its own.
 */
export function ownPayload(payload: Buffer): Buffer {
  return payload.length * 2 > payload.buffer.byteLength ? payload : Buffer.from(payload)
}

/** A copy that shares nothing: for what stays when its neighbours go. */
export function lonePayload(payload: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(payload.length)
  payload.copy(own)
  return own
}
