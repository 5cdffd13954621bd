import type { ErrorReason, GatewayError } from './errors.js'
import type { Traffic, Transport } from './metrics.js'
import type { TimeSlicer } from './time-slicer.js'

/** A client as its broker knows it. */
export interface ClientSession {
  /** The broker's own where the client sent none. */
  readonly clientId: string
  /** The authenticated user. */
  readonly user: string | undefined
  readonly filters: ReadonlySet<string>
  /** Messages that wait in its session: unacknowledged ones, and those of its absence. */
  readonly queuedMessages: number
  readonly queuedBytes: number
}

/** A connected MQTT client, of any broker. */
export interface ConnectedClient {
  /** As in its CONNECT, or assigned by the broker; empty if neither is known. */
  readonly clientId: string
  /** The connection's id in the log. */
  readonly connection: string
  /** The user whom the gateway has authenticated; `undefined` for none. */
  readonly user: string | undefined
  /** The user name of the CONNECT, which another broker may not have checked. */
  readonly username: string | undefined
  readonly address: string
  /** 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5. */
  readonly protocolVersion: number | undefined
  readonly transport: Transport
  /** Of the WebSocket; `undefined` for others. */
  readonly path: string | undefined
  readonly broker: string
  /** In milliseconds since 1970. */
  readonly since: number
  readonly traffic: Readonly<Traffic>
  /** Bytes buffered by the gateway in both directions. */
  readonly bufferedBytes: number
  /** `undefined` where the broker does not tell. */
  readonly session: ClientSession | undefined
  /** Ends the connection; a client of MQTT 5 gets DISCONNECT with the reason. */
  end(reason: GatewayError): void
}

/** Called for each client that connects or disconnects. */
export interface ClientWatcher {
  connected(client: ConnectedClient): void
  disconnected(client: ConnectedClient, reason: ErrorReason): void
}

export interface ClientQuery {
  /** Continues a list after this position. */
  readonly after?: number | undefined
  /** Clients of one page. */
  readonly limit: number
  /** Bound of `sizeOf` of one page; a page has at least one client. */
  readonly maxSize: number
  sizeOf(client: ConnectedClient): number
  matches(client: ConnectedClient): boolean
  /** Whether the result is still wanted. */
  isWanted(): boolean
}

export interface ClientPage {
  readonly clients: readonly ConnectedClient[]
  /** The position of each. */
  readonly positions: readonly number[]
  /** For `after`; `undefined` at the end. */
  readonly next: number | undefined
}

/** Positions per millisecond, so that those of two runs, and of worker processes, differ. */
const positionsPerMillisecond = 1024
/** Distance of two positions of one worker, and the maximum number of workers. */
const workerPositions = 128

/**
 * All connected MQTT clients, in the order of connecting.
 *
 * A list is scanned in slices of time. Clients that connect or disconnect meanwhile may be in it or not; the others are in it once.
 */
export class ConnectedClients {
  readonly #slicer: TimeSlicer
  readonly #clients = new Map<ConnectedClient, number>()
  readonly #worker: number
  #lastPosition = 0
  #watcher: ClientWatcher | undefined

  /** @param worker number of the worker process */
  constructor(slicer: TimeSlicer, worker = 0) {
    this.#slicer = slicer
    this.#worker = worker
  }

  get size(): number {
    return this.#clients.size
  }

  /** One watcher at a time. */
  watch(watcher: ClientWatcher): void {
    this.#watcher = watcher
  }

  connected(client: ConnectedClient): void {
    // In the order of time, also over all workers; a cursor of an earlier run starts at the first client.
    const now = Date.now() * positionsPerMillisecond + this.#worker
    this.#lastPosition = Math.max(now, this.#lastPosition + workerPositions)
    this.#clients.set(client, this.#lastPosition)
    this.#watcher?.connected(client)
  }

  disconnected(client: ConnectedClient, reason: ErrorReason): void {
    if (this.#clients.delete(client)) this.#watcher?.disconnected(client, reason)
  }

  /** One page of the clients that match. */
  async page({ after = 0, limit, maxSize, sizeOf, matches, isWanted }: ClientQuery): Promise<ClientPage> {
    const clients: ConnectedClient[] = []
    const positions: number[] = []
    let [size, last] = [0, after]
    await this.#slicer.next('clients')
    // A map may change while it is iterated.
    for (const [client, position] of this.#clients) {
      if (this.#slicer.isOver) {
        await this.#slicer.next('clients')
        if (!isWanted()) break
        if (!this.#clients.has(client)) continue
      }
      if (position <= after || !matches(client)) continue
      size += sizeOf(client)
      if (clients.length >= limit || (size > maxSize && clients.length > 0)) {
        return { clients, positions, next: last }
      }
      clients.push(client)
      positions.push(position)
      last = position
    }
    return { clients, positions, next: undefined }
  }

  /** All clients that match: for few of them. */
  async find(
    matches: (client: ConnectedClient) => boolean,
    isWanted: () => boolean,
  ): Promise<readonly ConnectedClient[]> {
    const unbounded = { limit: Number.POSITIVE_INFINITY, maxSize: Number.POSITIVE_INFINITY, sizeOf: () => 0 }
    return (await this.page({ ...unbounded, matches, isWanted })).clients
  }
}
