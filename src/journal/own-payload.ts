/** Bytes that are taken for small payloads at a time. */
const blockSize = 8192

/**
 * Makes payloads that may be kept: a copy where one is a small part of a larger block, such as the 64 KiB that Node reads
 * at a time, which would be kept with it.
 *
 * Small copies share blocks with their neighbours, which are kept as long: that takes 220 bytes less for each than memory
 * of its own. Not those of Node's pool, where there is much else between them: of ten thousand messages of 180 bytes, that
 * kept 15 MB.
 */
export class OwnPayloads {
  #block = Buffer.alloc(0)
  #used = 0

  of(payload: Buffer): Buffer {
    const { length } = payload
    if (length * 2 > payload.buffer.byteLength) return payload
    if (length * 4 > blockSize) return lonePayload(payload)
    if (this.#used + length > this.#block.length) {
      this.#block = Buffer.allocUnsafeSlow(blockSize)
      this.#used = 0
    }
    const own = this.#block.subarray(this.#used, this.#used + length)
    payload.copy(own)
    this.#used += length
    return own
  }
}

/** A payload that shares nothing, for what stays when its neighbours go: a copy, unless it shares nothing already. */
export function lonePayload(payload: Buffer): Buffer {
  if (payload.length === payload.buffer.byteLength) return payload
  const own = Buffer.allocUnsafeSlow(payload.length)
  payload.copy(own)
  return own
}
