/** A client with a session, or without. */
interface SessionClient {
  readonly id: string
  readonly clean: boolean
}

/**
 * Values by session and packet identifier. A session continues with the next connection of its client id; a clean one ends with its
 * connection.
 */
export class SessionMaps<Value> {
  readonly #connections = new WeakMap<SessionClient, Map<number, Value>>()
  readonly #sessions = new Map<string, Map<number, Value>>()

  get(client: SessionClient, id: number): Value | undefined {
    return this.#of(client)?.get(id)
  }

  /** Forgets all of a session that continues with no further connection. */
  endSession(clientId: string): void {
    this.#sessions.delete(clientId)
  }

  set(client: SessionClient, id: number, value: Value): void {
    const known = this.#of(client)
    const values = known ?? new Map<number, Value>()
    values.set(id, value)
    if (known) return
    if (client.clean) this.#connections.set(client, values)
    else this.#sessions.set(client.id, values)
  }

  delete(client: SessionClient, id: number): void {
    const values = this.#of(client)
    values?.delete(id)
    if (values?.size === 0 && !client.clean) this.#sessions.delete(client.id)
  }

  #of(client: SessionClient): Map<number, Value> | undefined {
    return client.clean ? this.#connections.get(client) : this.#sessions.get(client.id)
  }
}
