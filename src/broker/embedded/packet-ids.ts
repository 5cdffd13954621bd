/** [MQTT-2.3.1-1] */
export const maxPacketId = 65_535

/** Identifiers of one page. Unused pages are dropped: a client mostly has one or two, of 512 bytes. */
const pageSize = 2048

/** State of an identifier, in two bits: the acknowledgement it waits for; 0 is free. */
const states = { puback: 1, pubrec: 2, pubcomp: 3 } as const

export type Acknowledgement = keyof typeof states

/** The first acknowledgement of a message of QoS 1 or 2. */
export function firstAcknowledgement(qos: number): Acknowledgement {
  return qos === 2 ? 'pubrec' : 'puback'
}

interface Page {
  readonly bits: Uint8Array
  used: number
}

/**
 * Packet identifiers of messages to one client, and the acknowledgement that each waits for: none is reused before it [MQTT-2.3.1-4].
 */
export class PacketIds {
  readonly #pages: (Page | undefined)[] = new Array(Math.ceil((maxPacketId + 1) / pageSize)).fill(undefined)
  #next: number
  #used = 0

  /** @param first the first identifier of `next` */
  constructor(first = 1) {
    this.#next = first
  }

  get used(): number {
    return this.#used
  }

  has(id: number): boolean {
    return this.#stateOf(id) !== 0
  }

  /** The next free identifier; where none is free, one in use. */
  get next(): number {
    for (let tries = 0; tries < maxPacketId && this.#stateOf(this.#next) !== 0; tries++) this.#next = after(this.#next)
    return this.#next
  }

  takeNext(awaited: Acknowledgement): number {
    const id = this.next
    this.take(id, awaited)
    return id
  }

  /** Takes an identifier, or sets its acknowledgement. */
  take(id: number, awaited: Acknowledgement): void {
    const index = Math.floor(id / pageSize)
    let page = this.#pages[index]
    if (!page) {
      page = { bits: new Uint8Array(pageSize / 4), used: 0 }
      this.#pages[index] = page
    }
    if (this.#stateOf(id) === 0) {
      page.used++
      this.#used++
    }
    set(page, id, states[awaited])
  }

  /**
   * Notes what a client acknowledges; the identifier stays in use until `release`.
   *
   * @returns whether the message waits for that, or none has the identifier: a client may repeat itself
   */
  acknowledge(id: number, acknowledgement: Acknowledgement): boolean {
    const state = this.#stateOf(id)
    if (state === 0 || state === states[acknowledgement]) {
      if (acknowledgement === 'pubrec' && state !== 0) this.take(id, 'pubcomp')
      return true
    }
    return acknowledgement === 'pubrec' && state === states.pubcomp
  }

  /** Gives an identifier free, whether it is in use or not. */
  release(id: number): void {
    const index = Math.floor(id / pageSize)
    const page = this.#pages[index]
    if (!page || this.#stateOf(id) === 0) return
    set(page, id, 0)
    this.#used--
    page.used--
    // The one that is filled now stays.
    if (page.used === 0 && index !== Math.floor(this.#next / pageSize)) this.#pages[index] = undefined
  }

  #stateOf(id: number): number {
    const page = this.#pages[Math.floor(id / pageSize)]
    if (!page) return 0
    const [at, shift] = positionOf(id)
    return ((page.bits[at] ?? 0) >> shift) & 3
  }
}

function set(page: Page, id: number, state: number): void {
  const [at, shift] = positionOf(id)
  page.bits[at] = ((page.bits[at] ?? 0) & ~(3 << shift)) | (state << shift)
}

function positionOf(id: number): readonly [at: number, shift: number] {
  const position = id % pageSize
  return [position >> 2, (position & 3) << 1]
}

function after(id: number): number {
  return id >= maxPacketId ? 1 : id + 1
}
