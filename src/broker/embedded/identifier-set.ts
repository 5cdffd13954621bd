/** Identifiers of one page: 4096 bits. */
const pageBytes = 512

/** A set of packet identifiers: one bit each, in pages, at most 8 KiB. */
export class IdentifierSet {
  readonly #pages: (Uint8Array | undefined)[] = []

  has(id: number): boolean {
    const [page, byte, bit] = locate(id)
    return ((this.#pages[page]?.[byte] ?? 0) & bit) !== 0
  }

  add(id: number): void {
    const [page, byte, bit] = locate(id)
    const bits = this.#pages[page] ?? new Uint8Array(pageBytes)
    this.#pages[page] = bits
    bits[byte] = (bits[byte] ?? 0) | bit
  }

  delete(id: number): void {
    const [page, byte, bit] = locate(id)
    const bits = this.#pages[page]
    if (!bits) return
    bits[byte] = (bits[byte] ?? 0) & ~bit
    if (bits.every(value => value === 0)) this.#pages[page] = undefined
  }

  get isEmpty(): boolean {
    return this.#pages.every(page => page === undefined)
  }
}

function locate(id: number): readonly [page: number, byte: number, bit: number] {
  const byte = id >> 3
  return [Math.floor(byte / pageBytes), byte % pageBytes, 1 << (id & 7)]
}
