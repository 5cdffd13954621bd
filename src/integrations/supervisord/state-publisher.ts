import type { Message } from '../../mqtt/message.js'
import { isWithinBounds } from '../../topics/topic-syntax.js'
import type { ListenerEvent } from './event-reader.js'
import {
  isProcessState,
  type ProcessState,
  processStates,
  readProcessState,
  stateMessages,
  stateTopic,
} from './process-state.js'

export interface StatePublisherOptions {
  /** Prefix of the topics. */
  readonly prefix: string
  /** Publishes messages, which `make` returns for each attempt; resolves with whether the broker has acknowledged all. */
  readonly deliver: (make: () => readonly Message[]) => Promise<boolean>
  readonly warn: (text: string) => void
  /** Milliseconds since 1970. */
  readonly now?: () => number
}

/** Remembered processes and repeated events; for forgotten ones it publishes some messages more. */
const maxRemembered = 10_000
/** Bounds of topics in the embedded broker. */
const maxTopic = { topicLength: 1024, topicLevels: 32 }

/** Publishes process states as retained messages, one event at a time. */
export class StatePublisher {
  readonly #options: StatePublisherOptions
  /** The only state with a retained message, by process; unknown for processes not in it. */
  readonly #retained = new Map<string, string>()
  /** First arrival of events that supervisord sends again. */
  readonly #times = new Map<string, number>()
  readonly #ignored = new Set<string>()

  constructor(options: StatePublisherOptions) {
    this.#options = options
  }

  /** Publishes an event; `false` if supervisord should send it again. Events that can never be published resolve with `true`. */
  async publish(event: ListenerEvent): Promise<boolean> {
    const { prefix, deliver, warn, now = Date.now } = this.#options
    if (!isProcessState(event.eventname)) {
      this.#ignore(event.eventname)
      return true
    }
    const change = readProcessState(event)
    if (!change) {
      warn(`Skipped an event ${event.eventname} that names no process`)
      return true
    }
    const key = `${change.group}/${change.process}`
    const first = `${event.header.get('server')} ${event.header.get('serial')}`
    const time = this.#times.get(first) ?? now()
    if ([change.state, ...processStates].some(state => isTooLarge(stateTopic(prefix, change, state)))) {
      warn(`Skipped the process ${JSON.stringify(nameOf(change))}: its topic would be too long`)
      return true
    }
    const delivered = await deliver(() => {
      const before = this.#retained.get(key)
      const others = before === undefined ? processStates : [before]
      const cleared = others.filter(state => state !== change.state)
      return stateMessages(prefix, change, time, cleared)
    })
    if (delivered) this.#times.delete(first)
    else remember(this.#times, first, time)
    // After a failure, the broker's retained messages are unknown.
    if (delivered) remember(this.#retained, key, change.state)
    else this.#retained.delete(key)
    return delivered
  }

  /** Forgets the retained states, because a restarted broker may have old ones. The next event of each process clears all others. */
  forgetRetained(): void {
    this.#retained.clear()
  }

  #ignore(eventname: string): void {
    if (this.#ignored.has(eventname) || this.#ignored.size > 100) return
    this.#ignored.add(eventname)
    this.#options.warn(`Events ${eventname} are not published, only PROCESS_STATE`)
  }
}

function nameOf({ group, process }: ProcessState): string {
  return `${group}:${process}`.slice(0, 100)
}

function isTooLarge(topic: string): boolean {
  return !isWithinBounds(topic, maxTopic)
}

/** Adds an entry as the newest; beyond the maximum, removes the oldest. */
function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key)
  map.set(key, value)
  if (map.size <= maxRemembered) return
  const [oldest] = map.keys()
  if (oldest !== undefined) map.delete(oldest)
}
