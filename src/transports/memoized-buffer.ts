/** Memoizes the last encoded cursor: ten thousand connections in a row have the same one. */
export class MemoizedBuffer {
  readonly #encode: (cursor: string | undefined) => Buffer
  #cursor: string | undefined
  #bytes: Buffer | undefined

  constructor(encode: (cursor: string | undefined) => Buffer) {
    this.#encode = encode
  }

  of(cursor: string | undefined): Buffer {
    if (this.#bytes === undefined || cursor !== this.#cursor) {
      this.#cursor = cursor
      this.#bytes = this.#encode(cursor)
    }
    return this.#bytes
  }
}
