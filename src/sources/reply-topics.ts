import type { Event } from '../journal/event.js'
import type { Journal } from '../journal/journal.js'

interface Waiting {
  readonly onTurn: () => void
  readonly onReply: (event: Event) => void
}

/** A reply that is expected on a topic. */
export interface ExpectedReply {
  /** Resolves when the earlier ones on the topic are there, or are no longer expected. */
  readonly turn: Promise<void>
  /** Stops expecting it. */
  cancel(): void
}

/**
 * Replies on topics that clients of MQTT 3.1.1 publish to anyway. They do not say what they reply to, so that one reply at a time is expected on
 * each topic.
 */
export class ReplyTopics {
  readonly #journal: Pick<Journal, 'watch'>
  /** By topic, in order; the first has its turn. */
  readonly #waiting = new Map<string, Waiting[]>()
  #unwatch: (() => void) | undefined

  constructor(journal: Pick<Journal, 'watch'>) {
    this.#journal = journal
  }

  /** @param onReply called for each event on the topic from its turn on */
  expect(topic: string, onReply: (event: Event) => void): ExpectedReply {
    this.#unwatch ??= this.#journal.watch(
      events => {
        for (const event of events) this.#waiting.get(event.topic)?.[0]?.onReply(event)
      },
      name => this.#waiting.has(name),
    )
    const queue = this.#waiting.get(topic) ?? []
    this.#waiting.set(topic, queue)
    let onTurn = (): void => {}
    const turn = new Promise<void>(resolve => {
      onTurn = resolve
    })
    const waiting: Waiting = { onTurn, onReply }
    queue.push(waiting)
    queue[0]?.onTurn()
    return { turn, cancel: () => this.#cancel(topic, queue, waiting) }
  }

  #cancel(topic: string, queue: Waiting[], waiting: Waiting): void {
    const index = queue.indexOf(waiting)
    if (index === -1) return
    queue.splice(index, 1)
    queue[0]?.onTurn()
    if (queue.length > 0) return
    this.#waiting.delete(topic)
    if (this.#waiting.size > 0) return
    this.#unwatch?.()
    this.#unwatch = undefined
  }
}
