import { GatewayError } from '../../base/errors.js'
import type { Event } from '../../journal/event.js'
import { sizeOf } from '../../journal/journal.js'
import type { Message } from '../../mqtt/message.js'
import { PublishQuota, type PublishQuotaOptions } from '../publish-quota.js'
import type { PublishOptions } from '../publisher.js'

export interface PendingPublishesOptions extends PublishQuotaOptions {
  /** Time limit until the broker returns a publish, in milliseconds. */
  readonly timeout: number
  /** Publishes beyond that with an `extraTimeout`, and their bytes; the oldest fail first. */
  readonly maxLate: number
  readonly maxLateBytes: number
}

/** A publish that the broker has not returned. */
export interface PendingPublish {
  readonly message: Message
  /** Resolves with its event in the journal. */
  readonly event: Promise<Event>
  arrive(event: Event): void
  fail(error: unknown): void
}

interface Entry extends PendingPublish {
  readonly by: string | undefined
  readonly size: number
  /** In milliseconds. */
  readonly extraTimeout: number
  timer: NodeJS.Timeout
  /** Whether the broker has returned it and it is being appended. */
  isBack: boolean
}

/**
 * The gateway's publishes that the broker has not returned.
 *
 * MQTT 3.1.1 does not identify a message, so the first one with the same topic, payload and RETAIN counts: where another client publishes an
 * identical message at the same time, the two cannot be told apart.
 */
export class PendingPublishes {
  readonly #options: PendingPublishesOptions
  readonly #byTopic = new Map<string, Entry[]>()
  readonly #quota: PublishQuota
  /** Entries beyond the timeout, within their `extraTimeout`, the oldest first. */
  readonly #late = new Set<Entry>()
  #lateBytes = 0
  readonly #onIdle: (() => void)[] = []

  constructor(options: PendingPublishesOptions) {
    this.#options = options
    this.#quota = new PublishQuota(options)
  }

  /**
   * @param by the publisher, for its quota; left out for the gateway itself
   * @throws {GatewayError} `publishing-too-fast` or `broker-away`, see `PublishQuota.take`
   */
  add(message: Message, { extraTimeout = 0, by }: PublishOptions = {}): PendingPublish {
    const size = sizeOf(message)
    this.#quota.take(by, size)
    let [resolve, reject]: [(event: Event) => void, (error: unknown) => void] = [ignore, ignore]
    const event = new Promise<Event>((onEvent, onError) => {
      ;[resolve, reject] = [onEvent, onError]
    })
    // It may reject before a caller awaits it.
    event.catch(ignore)
    let settled = false
    const settle = (): boolean => {
      if (settled) return false
      settled = true
      clearTimeout(entry.timer)
      this.#release(entry)
      return true
    }
    const entry: Entry = {
      ...{ message, by, event, size, extraTimeout, isBack: false },
      arrive: arrived => {
        if (settle()) resolve(arrived)
      },
      fail: error => {
        if (!settle()) return
        this.#delete(entry)
        reject(error)
      },
      timer: setTimeout(() => this.#onTimeout(entry), this.#options.timeout),
    }
    const others = this.#byTopic.get(message.topic)
    if (others) others.push(entry)
    else this.#byTopic.set(message.topic, [entry])
    return entry
  }

  /**
   * Takes the oldest publish that `message` may be; a late one only if there is no other, because the broker may never return it.
   *
   * @param retainKnown whether `message` has RETAIN as it was published
   */
  take(message: Message, retainKnown: boolean): PendingPublish | undefined {
    const mayBe = ({ message: { payload, retain } }: Entry): boolean =>
      (!retainKnown || retain === message.retain) && payload.equals(message.payload)
    const entries = this.#byTopic.get(message.topic)
    const inTime = entries?.find(each => !this.#late.has(each) && mayBe(each))
    const entry = inTime ?? (this.#late.size > 0 ? entries?.find(mayBe) : undefined)
    if (entry) {
      entry.isBack = true
      this.#delete(entry)
    }
    return entry
  }

  /** Resolves when all are returned or failed. */
  idle(): Promise<void> {
    if (this.#byTopic.size === 0) return Promise.resolve()
    return new Promise(resolve => this.#onIdle.push(resolve))
  }

  largest(): PendingPublish | undefined {
    let largest: Entry | undefined
    for (const entries of this.#byTopic.values()) {
      for (const entry of entries) if (!largest || entry.size > largest.size) largest = entry
    }
    return largest
  }

  close(error: unknown): void {
    for (const entries of [...this.#byTopic.values()]) for (const entry of [...entries]) entry.fail(error)
  }

  /** A late publish has a separate quota, so that it does not block other publishes. */
  #onTimeout(entry: Entry): void {
    if (entry.extraTimeout === 0) {
      entry.fail(new GatewayError('publish-timeout'))
      return
    }
    this.#release(entry)
    this.#late.add(entry)
    this.#lateBytes += entry.size
    entry.timer = setTimeout(() => {
      if (!entry.isBack) entry.fail(new GatewayError('publish-timeout'))
    }, entry.extraTimeout).unref()
    const { maxLate, maxLateBytes } = this.#options
    for (const oldest of this.#late) {
      if (this.#late.size <= maxLate && this.#lateBytes <= maxLateBytes) break
      // A publish that is back will be in the journal; the reading bounds those.
      if (!oldest.isBack) oldest.fail(new GatewayError('publish-timeout'))
    }
  }

  #release(entry: Entry): void {
    if (this.#late.delete(entry)) this.#lateBytes -= entry.size
    else this.#quota.giveBack(entry.by, entry.size)
  }

  #delete(entry: Entry): void {
    const { topic } = entry.message
    const entries = this.#byTopic.get(topic) ?? []
    // In place: there may be thousands on one topic, and it is mostly the first.
    const index = entries.indexOf(entry)
    if (index !== -1) entries.splice(index, 1)
    if (entries.length === 0) this.#byTopic.delete(topic)
    if (this.#byTopic.size === 0) for (const resolve of this.#onIdle.splice(0)) resolve()
  }
}

function ignore(): void {}
