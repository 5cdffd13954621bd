import {
  type ClientDirectory,
  type ClientList,
  type ClientListQuery,
  type ClientSnapshot,
  type ClientsEnd,
  type FoundClients,
  maxListSize,
  sizeOf,
  type WantedClients,
} from '../base/client-directory.js'
import type { WorkerGroup } from './primary-process.js'

const always = (): boolean => true

/** The connected MQTT clients of all workers. Those of a worker that does not answer are left out. */
export class AllClients implements ClientDirectory {
  readonly #local: ClientDirectory
  readonly #group: WorkerGroup

  /** @param local the clients of this worker, which the others get, too */
  constructor(local: ClientDirectory, group: WorkerGroup) {
    this.#local = local
    this.#group = group
    group.onQuestion('listClients', query => local.list(query, always))
    group.onQuestion('findClients', wanted => local.find(wanted, always))
    group.onQuestion('endClients', end => local.end(end, always))
  }

  async list(query: ClientListQuery, isWanted: () => boolean): Promise<ClientList> {
    const [own, others] = await Promise.all([
      this.#local.list(query, isWanted),
      this.#group.askOthers('listClients', query),
    ])
    return merge([own, ...others.answers], query.limit, others.missing > 0)
  }

  async find(wanted: WantedClients, isWanted: () => boolean): Promise<FoundClients> {
    const own = this.#local.find(wanted, isWanted)
    const others = await this.#group.askOthers('findClients', wanted)
    return join([await own, ...others.answers], others.missing > 0)
  }

  async end(end: ClientsEnd, isWanted: () => boolean): Promise<FoundClients> {
    const own = this.#local.end(end, isWanted)
    const others = await this.#group.askOthers('endClients', end)
    return join([await own, ...others.answers], others.missing > 0)
  }
}

function join(found: readonly FoundClients[], isIncomplete: boolean): FoundClients {
  return { clients: found.flatMap(({ clients }) => clients), isIncomplete }
}

/** Merges pages by position, up to the end of the shortest one that is continued. */
function merge(lists: readonly ClientList[], limit: number, isIncomplete: boolean): ClientList {
  const end = Math.min(...lists.map(({ next = Number.POSITIVE_INFINITY }) => next))
  const all = lists
    .flatMap(({ clients, positions }) =>
      clients.map((client, index): [number, ClientSnapshot] => [positions[index] ?? 0, client]),
    )
    .sort(([a], [b]) => a - b)
  const merged: typeof all = []
  let size = 0
  for (const entry of all) {
    size += sizeOf(entry[1])
    const isFull = merged.length >= limit || (size > maxListSize && merged.length > 0)
    if (entry[0] > end || isFull) break
    merged.push(entry)
  }
  const hasMore = merged.length < all.length || end < Number.POSITIVE_INFINITY
  return {
    connected: lists.reduce((sum, { connected }) => sum + connected, 0),
    clients: merged.map(([, client]) => client),
    positions: merged.map(([position]) => position),
    next: hasMore ? merged.at(-1)?.[0] : undefined,
    isIncomplete,
  }
}
