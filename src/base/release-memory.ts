/** Smaller buffers are left to the garbage collector, in bytes. */
const minLength = 1024

/** ES2024, from Node 22 on. */
type Transferable = ArrayBufferLike & { transfer?(newByteLength: number): ArrayBuffer }

/**
 * Frees the memory of a buffer that nothing uses any more, if the buffer has all of it: parts of other memory stay as they are.
 *
 * As of Node 24, V8 counts the memory of buffers towards its limit for full collections: a tunnel's reads, collected late, caused one for every
 * 64 MiB. Detaching the memory (ECMAScript's `ArrayBuffer.prototype.transfer`) frees it at once (`docs/decisions/0016`). Node 20 has no such
 * method, and no such collections.
 */
export function releaseMemory({ buffer, byteLength }: Buffer): void {
  const memory: Transferable = buffer
  if (byteLength >= minLength && byteLength === memory.byteLength) memory.transfer?.(0)
}
