import { type Decision, type StateCollection, type StateRecord, updateState } from '../../storage/shared-state.js'

/** Milliseconds that a request waits for the response that another gateway writes, and their interval. */
const [maxSendTime, checkInterval] = [1000, 20]

/** What is stored of a handle. */
interface StoredHandle {
  readonly epoch: string
  /** All messages up to this sequence were delivered, or are not delivered any more. */
  readonly position: number
  /** The newest request, which gets the next message. */
  readonly request: string
  /** A message that is being written in the response to a request. */
  readonly sending?: { readonly request: string; readonly sequence: number }
}

/** Who has a message: the request that asks, a newer one, or a client that got it before. */
export type Claim = 'claimed' | 'replaced' | 'delivered'

export interface HandlePositionOptions {
  readonly handles: StateCollection
  readonly name: string
  readonly journal: { readonly epoch: string; readonly head: number }
}

/**
 * The position of a handle, which all gateways share: each message goes to the newest request, at whichever gateway, and is delivered once its
 * response is written. A request claims a message before it sends it. All methods reject while the state is away.
 */
export class HandlePosition {
  readonly #options: HandlePositionOptions

  constructor(options: HandlePositionOptions) {
    this.#options = options
  }

  /**
   * Begins the newest request, after the response that another gateway still writes; after a second without its end, that message is
   * undelivered.
   *
   * @param owner the account that the handle counts for
   * @param known position that this gateway knows
   * @returns the position of the handle
   */
  async begin(request: string, owner: string, known: number): Promise<number> {
    let stored = await this.#update(owner, before => ({
      ...{ epoch: this.#epoch, request, position: Math.max(before?.position ?? 0, known) },
      ...(before?.sending && { sending: before.sending }),
    }))
    const until = performance.now() + maxSendTime
    while (stored?.sending && performance.now() < until) {
      await new Promise(resolve => setTimeout(resolve, checkInterval))
      stored = this.#read(await this.#options.handles.get(this.#options.name))
    }
    // The request that it belonged to cannot deliver it any more.
    if (stored?.sending) stored = await this.#update(owner, before => before && withoutSending(before))
    return stored?.position ?? known
  }

  /** Claims a message for a request. */
  async claim(request: string, owner: string, sequence: number): Promise<Claim> {
    let claim: Claim = 'claimed'
    await this.#update(owner, before => {
      const isDelivered = before !== undefined && before.position >= sequence
      claim = before && before.request !== request ? 'replaced' : isDelivered ? 'delivered' : 'claimed'
      if (claim !== 'claimed') return undefined
      const position = before?.position ?? sequence - 1
      return { epoch: this.#epoch, position, request, sending: { request, sequence } }
    })
    return claim
  }

  /** Ends the claim of a request. @param isWritten whether the message is delivered */
  async settle(request: string, owner: string, isWritten: boolean): Promise<void> {
    await this.#update(owner, before => {
      if (before?.sending?.request !== request) return undefined
      const { sequence } = before.sending
      return withoutSending({ ...before, position: isWritten ? Math.max(before.position, sequence) : before.position })
    })
  }

  /** Notes that no message up to `position` is undelivered, at the end of a request without one. */
  async advance(request: string, owner: string, position: number): Promise<void> {
    await this.#update(owner, before =>
      before?.request === request ? { ...before, position: Math.max(before.position, position) } : undefined,
    )
  }

  get #epoch(): string {
    return this.#options.journal.epoch
  }

  /** @param change `undefined` to leave it @returns what is stored then */
  async #update(
    owner: string,
    change: (before: StoredHandle | undefined) => StoredHandle | undefined,
  ): Promise<StoredHandle | undefined> {
    const decide = (record: StateRecord): Decision<StoredHandle | undefined> => {
      const before = this.#read(record)
      const after = change(before)
      if (after === undefined) return { result: before }
      return { change: { value: JSON.stringify(after), owner }, result: after }
    }
    return (await updateState(this.#options.handles, this.#options.name, decide)).result
  }

  #read({ value }: StateRecord): StoredHandle | undefined {
    const { journal } = this.#options
    const stored = value === undefined ? undefined : (JSON.parse(value) as StoredHandle)
    // Of a journal that was lost.
    return stored && stored.epoch !== journal.epoch && stored.position > journal.head ? undefined : stored
  }
}

function withoutSending({ sending: _, ...stored }: StoredHandle): StoredHandle {
  return stored
}
