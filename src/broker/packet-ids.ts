/** [MQTT-2.3.1-1] */
export const maxPacketId = 65_535

/** Identifiers of one page; pages without any in use are not kept: a client that acknowledges has one or two, of 512 bytes. */
const pageSize = 4096

interface Page {
  readonly bits: Uint8Array
  used: number
}

/** The packet identifiers of messages to one client: none is given to another message before it is acknowledged [MQTT-2.3.1-4]. */
export class PacketIds {
  readonly #pages: (Page | undefined)[] = new Array(Math.ceil((maxPacketId + 1) / pageSize)).fill(undefined)
  #next: number
  #used = 0

  /** @param first the identifier that is tried first */
  constructor(first: number) {
    this.#next = first
  }

  /** Identifiers in use. */
  get used(): number {
    return this.#used
  }

  /** The next one that is free; where none is, one in use. */
  get next(): number {
    for (let tries = 0; tries < maxPacketId && this.#has(this.#next); tries++) this.#next = after(this.#next)
    return this.#next
  }

  /** Takes the next one that is free. */
  takeNext(): number {
    const id = this.next
    this.take(id)
    return id
  }

  /** Puts an identifier into use. */
  take(id: number): void {
    const index = Math.floor(id / pageSize)
    let page = this.#pages[index]
    if (!page) {
      page = { bits: new Uint8Array(pageSize / 8), used: 0 }
      this.#pages[index] = page
    }
    const [at, mask] = placeOf(id)
    const byte = page.bits[at] ?? 0
    if ((byte & mask) !== 0) return
    page.bits[at] = byte | mask
    page.used++
    this.#used++
  }

  /** Gives an identifier free, whether it is in use or not. */
  release(id: number): void {
    const index = Math.floor(id / pageSize)
    const page = this.#pages[index]
    if (!page || !this.#has(id)) return
    const [at, mask] = placeOf(id)
    page.bits[at] = (page.bits[at] ?? 0) & ~mask
    this.#used--
    page.used--
    // The one that is filled now stays.
    if (page.used === 0 && index !== Math.floor(this.#next / pageSize)) this.#pages[index] = undefined
  }

  #has(id: number): boolean {
    const page = this.#pages[Math.floor(id / pageSize)]
    if (!page) return false
    const [at, mask] = placeOf(id)
    return ((page.bits[at] ?? 0) & mask) !== 0
  }
}

function placeOf(id: number): readonly [at: number, mask: number] {
  const bit = id % pageSize
  return [bit >> 3, 1 << (bit & 7)]
}

function after(id: number): number {
  return id >= maxPacketId ? 1 : id + 1
}
