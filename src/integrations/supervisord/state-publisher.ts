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

/** What a publisher of states needs. */
export interface StatePublisherOptions {
  /** What the topics begin with. */
  readonly prefix: string
  /** Has messages made for each attempt to hand them to the broker, in this order; says whether it has acknowledged all. */
  readonly deliver: (make: () => readonly Message[]) => Promise<boolean>
  readonly warn: (text: string) => void
  /** Milliseconds since 1970. */
  readonly now?: () => number
}

/** Processes, and events to be sent again, that are remembered. What is forgotten costs some messages more. */
const maxRemembered = 10_000
/** As large as a topic may be at mqway's own broker. */
const maxTopic = { topicLength: 1024, topicLevels: 32 }

/** Makes retained messages of the states of processes. One event at a time, as supervisord sends them. */
export class StatePublisher {
  readonly #options: StatePublisherOptions
  /** The one state of which each process has a retained message; of the others nobody knows. */
  readonly #retained = new Map<string, string>()
  /** When those events first came that have to come again. */
  readonly #times = new Map<string, number>()
  readonly #ignored = new Set<string>()

  constructor(options: StatePublisherOptions) {
    this.#options = options
  }

  /** Publishes an event; `false` where supervisord should send it again. What never could be published is done with, too. */
  async publish(event: ListenerEvent): Promise<boolean> {
    const { prefix, deliver, warn, now = Date.now } = this.#options
    if (!isProcessState(event.eventname)) {
      this.#ignore(event.eventname)
      return true
    }
    const change = readProcessState(event)
    if (!change) {
      warn(`an event ${event.eventname} names no process: it is not published`)
      return true
    }
    const key = `${change.group}/${change.process}`
    const first = `${event.header.get('server')} ${event.header.get('serial')}`
    const time = this.#times.get(first) ?? now()
    if ([change.state, ...processStates].some(state => isTooLarge(stateTopic(prefix, change, state)))) {
      warn(`the topic of the process ${JSON.stringify(nameOf(change))} would be too long: it is not published`)
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
    // After a failure, nobody knows what the broker has.
    if (delivered) remember(this.#retained, key, change.state)
    else this.#retained.delete(key)
    return delivered
  }

  /**
   * Forgets which states are retained: a broker that was started anew may have those of long ago. Each process's next event
   * clears all of its others.
   */
  forgetRetained(): void {
    this.#retained.clear()
  }

  #ignore(eventname: string): void {
    if (this.#ignored.has(eventname) || this.#ignored.size > 100) return
    this.#ignored.add(eventname)
    this.#options.warn(`events ${eventname} are not published: only PROCESS_STATE is`)
  }
}

function nameOf({ group, process }: ProcessState): string {
  return `${group}:${process}`.slice(0, 100)
}

function isTooLarge(topic: string): boolean {
  return !isWithinBounds(topic, maxTopic)
}

/** Puts it last; the oldest goes when there are too many. */
function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key)
  map.set(key, value)
  if (map.size <= maxRemembered) return
  const [oldest] = map.keys()
  if (oldest !== undefined) map.delete(oldest)
}
