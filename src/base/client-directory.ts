import type { ConnectedClient, ConnectedClients } from './connected-clients.js'
import { GatewayError } from './errors.js'
import type { Logger } from './log.js'
import type { Transport } from './metrics.js'

/** Which clients are wanted; all without a member. */
export interface WantedClients {
  readonly clientId?: string | undefined
  /** A part of the client id, the user, the user name or the address. */
  readonly search?: string | undefined
  /** The beginning of the client id. */
  readonly prefix?: string | undefined
  /** The authenticated user, or the user name of the CONNECT. */
  readonly user?: string | undefined
  readonly transport?: Transport | undefined
  readonly connection?: string | undefined
}

/** A connected client at one moment; see `ConnectedClient`. */
export interface ClientSnapshot
  extends Pick<
    ConnectedClient,
    | 'clientId'
    | 'connection'
    | 'user'
    | 'username'
    | 'address'
    | 'protocolVersion'
    | 'transport'
    | 'path'
    | 'broker'
    | 'since'
    | 'bufferedBytes'
  > {
  readonly bytesIn: number
  readonly bytesOut: number
  readonly session:
    | {
        readonly queuedMessages: number
        readonly queuedBytes: number
        readonly subscriptions: number
        /** Some of its filters; empty in a list. */
        readonly filters: readonly string[]
      }
    | undefined
}

export interface ClientListQuery {
  readonly wanted: WantedClients
  /** Continues a list after this position. */
  readonly after: number | undefined
  readonly limit: number
}

export interface ClientList {
  /** Number of all clients, listed or not. */
  readonly connected: number
  readonly clients: readonly ClientSnapshot[]
  /** The position of each. */
  readonly positions: readonly number[]
  /** For `after`; `undefined` at the end. */
  readonly next: number | undefined
  /** Whether a worker process did not answer. */
  readonly isIncomplete: boolean
}

export interface FoundClients {
  readonly clients: readonly ClientSnapshot[]
  readonly isIncomplete: boolean
}

export interface ClientsEnd {
  readonly wanted: WantedClients
  /** Text for the client and the log. */
  readonly hint: string | undefined
  /** Who ends them, for the log. */
  readonly by: { readonly user: string | undefined; readonly peer: string }
}

/** Lists the connected MQTT clients, and disconnects them. */
export interface ClientDirectory {
  /** In the order of connecting. @param isWanted whether the result is still wanted */
  list(query: ClientListQuery, isWanted: () => boolean): Promise<ClientList>
  /** For few clients. */
  find(wanted: WantedClients, isWanted: () => boolean): Promise<FoundClients>
  /** @returns those that end */
  end(end: ClientsEnd, isWanted: () => boolean): Promise<FoundClients>
}

/** UTF-16 units of the texts of one list: client ids may have 64 KiB. */
export const maxListSize = 2 ** 20

/** Filters of one client, and their UTF-16 units. */
const [maxFilters, maxFilterSize] = [1000, 2 ** 20]

/** The clients of this process. */
export class LocalClients implements ClientDirectory {
  readonly #clients: ConnectedClients
  readonly #log: Logger

  constructor(clients: ConnectedClients, log: Logger) {
    this.#clients = clients
    this.#log = log
  }

  async list({ wanted, after, limit }: ClientListQuery, isWanted: () => boolean): Promise<ClientList> {
    const matches = matcherOf(wanted)
    const page = await this.#clients.page({ after, limit, maxSize: maxListSize, sizeOf, matches, isWanted })
    return {
      ...{ connected: this.#clients.size, next: page.next, positions: page.positions, isIncomplete: false },
      clients: page.clients.map(client => snapshotOf(client, [])),
    }
  }

  async find(wanted: WantedClients, isWanted: () => boolean): Promise<FoundClients> {
    const found = await this.#find(wanted, isWanted)
    return { clients: found.map(client => snapshotOf(client, client.session?.filters ?? [])), isIncomplete: false }
  }

  async end({ wanted, hint, by }: ClientsEnd, isWanted: () => boolean): Promise<FoundClients> {
    const found = await this.#find(wanted, isWanted)
    for (const each of found) {
      const { connection: disconnected, clientId } = each
      this.#log.warn({ ...by, clientId, disconnected, hint }, 'an administrator disconnects a client')
      each.end(new GatewayError('disconnected-by-admin', hint === undefined || hint === '' ? {} : { hint }))
    }
    return { clients: found.map(client => snapshotOf(client, [])), isIncomplete: false }
  }

  /** An empty client id is that of all clients without one, so it needs the connection. */
  async #find(wanted: WantedClients, isWanted: () => boolean): Promise<readonly ConnectedClient[]> {
    if (wanted.clientId === '' && wanted.connection === undefined) return []
    return this.#clients.find(matcherOf(wanted), isWanted)
  }
}

function matcherOf({ clientId, search, prefix, user, transport, connection: id }: WantedClients) {
  return (candidate: ConnectedClient): boolean =>
    (id === undefined || candidate.connection === id) &&
    (transport === undefined || candidate.transport === transport) &&
    (clientId === undefined || candidate.clientId === clientId) &&
    (prefix === undefined || candidate.clientId.startsWith(prefix)) &&
    (user === undefined || candidate.user === user || candidate.username === user) &&
    (search === undefined || textsOf(candidate).some(each => each?.includes(search)))
}

type Texts = Pick<ConnectedClient, 'clientId' | 'user' | 'username' | 'address' | 'path'>

function textsOf({ clientId, user, username, address }: Texts): (string | undefined)[] {
  return [clientId, user, username, address]
}

/** UTF-16 units of the texts of a client. */
export function sizeOf(candidate: Texts): number {
  return [...textsOf(candidate), candidate.path].reduce((size, each) => size + (each?.length ?? 0), 0)
}

function snapshotOf(client: ConnectedClient, filters: Iterable<string>): ClientSnapshot {
  const { clientId, connection, user, username, address, protocolVersion, transport, path, broker, since } = client
  const { bufferedBytes, session, traffic } = client
  return {
    ...{ clientId, connection, user, username, address, protocolVersion, transport, path, broker, since },
    ...{ bufferedBytes, bytesIn: traffic.bytesIn, bytesOut: traffic.bytesOut },
    session: session && {
      queuedMessages: session.queuedMessages,
      queuedBytes: session.queuedBytes,
      subscriptions: session.filters.size,
      filters: firstOf(filters),
    },
  }
}

function firstOf(filters: Iterable<string>): string[] {
  const first: string[] = []
  let size = 0
  for (const filter of filters) {
    size += filter.length
    if (first.length === maxFilters || size > maxFilterSize) break
    first.push(filter)
  }
  return first
}
