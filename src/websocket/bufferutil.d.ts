/** The part of `bufferutil` that the frame codec uses; the package ships no types. */
declare module 'bufferutil' {
  /** XORs `buffer` in place with the four bytes of `mask`, from phase 0. */
  export function unmask(buffer: Uint8Array, mask: Uint8Array): void
}
