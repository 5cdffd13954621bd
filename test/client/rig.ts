import { onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import type { Client, ClientState, ConnectOptions, Gap, PushEvent } from '../../src/client/api.js'
import { connect } from '../../src/client/mqway.js'
import { eventually } from '../helpers/wait.js'

// Node 20 has none. That of `ws` is the same to whoever uses only what the client does.
Object.assign(globalThis, { WebSocket })

/** A client of which everything is written down. */
export interface RecordedClient {
  readonly client: Client
  readonly events: PushEvent[]
  readonly gaps: Gap[]
  readonly states: ClientState[]
  /** The payloads of the events, in order. */
  readonly payloads: (string | undefined)[]
  until(condition: () => boolean | Promise<boolean>): Promise<void>
  /** Resolves when it is open, by this transport if one is named. */
  open(transport?: string): Promise<void>
}

/** Connects with quick tries, and closes when the test is over. */
export function recorded(options: ConnectOptions): RecordedClient {
  const events: PushEvent[] = []
  const gaps: Gap[] = []
  const states: ClientState[] = []
  const keep =
    <T>(list: T[]) =>
    (what: T): void => {
      list.push(what)
    }
  const client = connect({
    retry: { min: 20, max: 200 },
    connectTimeout: 1000,
    ...options,
    onEvent: keep(events),
    onGap: keep(gaps),
    onState: keep(states),
  })
  onTestFinished(() => client.close())
  return {
    client,
    events,
    gaps,
    states,
    get payloads() {
      return events.map(({ payload }) => payload)
    },
    until: eventually,
    open: transport =>
      eventually(() => {
        const { state } = client
        return state.phase === 'open' && (transport === undefined || state.transport === transport)
      }),
  }
}
