import { GatewayError } from '../../base/errors.js'
import type { Event } from '../../journal/event.js'
import { sizeOf } from '../../journal/journal.js'
import type { Message } from '../../mqtt/message.js'
import { PublishQuota, type PublishQuotaOptions } from '../publish-quota.js'
import type { PublishOptions } from '../publisher.js'

/** Bounds of the publications that are under way. */
export interface PendingPublishesOptions extends PublishQuotaOptions {
  /** How long one may take to come back, in milliseconds. */
  readonly timeout: number
  /** Those that are waited for beyond that, and their bytes; the oldest are given up. */
  readonly maxLate: number
  readonly maxLateBytes: number
}

/** A publication that is under way. */
export interface PendingPublish {
  readonly message: Message
  /** Its event, when it has come back and is in the journal. */
  readonly event: Promise<Event>
  /** Call when it is in the journal. */
  arrive(event: Event): void
  /** Call when it is not to come back. */
  fail(error: unknown): void
}

/** What is under way, as its keeper sees it. */
interface Awaited extends PendingPublish {
  /** Whoever published it. */
  readonly by: string | undefined
  readonly size: number
  /** In milliseconds. */
  readonly patience: number
  timer: NodeJS.Timeout
  /** Whether it has come back, and is on its way to the journal. */
  isBack: boolean
}

/**
 * What was published from here and is yet to come back from the broker.
 *
 * MQTT 3.1.1 has nothing by which to know a message again, and so the first with the same topic, payload and RETAIN is
 * taken for it. Where others publish the very same at the same time, theirs may be; nobody can tell the two apart.
 */
export class PendingPublishes {
  readonly #options: PendingPublishesOptions
  readonly #byTopic = new Map<string, Awaited[]>()
  readonly #quota: PublishQuota
  /** Those whose time is over, and that somebody waits for all the same; the oldest first. */
  readonly #late = new Set<Awaited>()
  #lateBytes = 0
  readonly #onIdle: (() => void)[] = []

  constructor(options: PendingPublishesOptions) {
    this.#options = options
    this.#quota = new PublishQuota(options)
  }

  /**
   * @param patience how long to wait after the time that everybody has, in milliseconds
   * @param by whoever publishes; each has half of the room at most, and leaves some for others. Left out for mqway itself
   * @throws {Ending} `publishing-too-fast` when too many of theirs are under way, `broker-away` when too many of all are, so that the
   *   broker can be said to be stuck
   */
  expect(message: Message, { patience = 0, by }: PublishOptions = {}): PendingPublish {
    const { timeout } = this.#options
    const size = sizeOf(message)
    this.#quota.take(by, size)
    const { promise, resolve, reject } = promiseOf<Event>()
    // It may fail before anybody waits for it.
    promise.catch(() => {})
    let settled = false
    const settle = (): boolean => {
      if (settled) return false
      settled = true
      clearTimeout(echo.timer)
      this.#release(echo)
      return true
    }
    const echo: Awaited = {
      message,
      by,
      event: promise,
      size,
      patience,
      isBack: false,
      arrive: event => {
        if (settle()) resolve(event)
      },
      fail: error => {
        if (!settle()) return
        this.#forget(echo)
        reject(error)
      },
      timer: setTimeout(() => this.#overdue(echo), timeout),
    }
    const others = this.#byTopic.get(message.topic)
    if (others) others.push(echo)
    else this.#byTopic.set(message.topic, [echo])
    return echo
  }

  /**
   * Takes the oldest publication that `message` may be; one whose time is over only where there is no other: it may never
   * come.
   *
   * @param retainKnown whether `message` tells if it was published with RETAIN
   */
  take(message: Message, retainKnown: boolean): PendingPublish | undefined {
    const mayBe = ({ message: { payload, retain } }: Awaited): boolean =>
      (!retainKnown || retain === message.retain) && payload.equals(message.payload)
    const echoes = this.#byTopic.get(message.topic)
    const inTime = echoes?.find(each => !this.#late.has(each) && mayBe(each))
    const echo = inTime ?? (this.#late.size > 0 ? echoes?.find(mayBe) : undefined)
    if (echo) {
      echo.isBack = true
      this.#forget(echo)
    }
    return echo
  }

  /** Resolves when all have come back, or are given up. */
  idle(): Promise<void> {
    if (this.#byTopic.size === 0) return Promise.resolve()
    return new Promise(resolve => this.#onIdle.push(resolve))
  }

  /** The one with the most bytes. */
  largest(): PendingPublish | undefined {
    let largest: Awaited | undefined
    for (const echoes of this.#byTopic.values()) {
      for (const echo of echoes) if (!largest || echo.size > largest.size) largest = echo
    }
    return largest
  }

  /** Fails all that are left. */
  close(error: unknown): void {
    for (const echoes of [...this.#byTopic.values()]) for (const echo of [...echoes]) echo.fail(error)
  }

  /** Somebody with patience goes on waiting, in a place of their own: what may never come keeps nobody from publishing. */
  #overdue(echo: Awaited): void {
    if (echo.patience === 0) {
      echo.fail(new GatewayError('publish-timeout'))
      return
    }
    this.#release(echo)
    this.#late.add(echo)
    this.#lateBytes += echo.size
    echo.timer = setTimeout(() => {
      if (!echo.isBack) echo.fail(new GatewayError('publish-timeout'))
    }, echo.patience).unref()
    const { maxLate, maxLateBytes } = this.#options
    for (const oldest of this.#late) {
      if (this.#late.size <= maxLate && this.#lateBytes <= maxLateBytes) break
      // What has come back will be in the journal, and there is no more of it than reading takes at once.
      if (!oldest.isBack) oldest.fail(new GatewayError('publish-timeout'))
    }
  }

  /** Gives back the place that it has. */
  #release(echo: Awaited): void {
    if (this.#late.delete(echo)) {
      this.#lateBytes -= echo.size
      return
    }
    this.#quota.giveBack(echo.by, echo.size)
  }

  #forget(echo: Awaited): void {
    const { topic } = echo.message
    const left = this.#byTopic.get(topic) ?? []
    // Mostly the first: a copy without it would take long where thousands are on one topic.
    const at = left.indexOf(echo)
    if (at !== -1) left.splice(at, 1)
    if (left.length === 0) this.#byTopic.delete(topic)
    if (this.#byTopic.size === 0) for (const resolve of this.#onIdle.splice(0)) resolve()
  }
}

function promiseOf<T>(): {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (error: unknown) => void
} {
  let resolve: (value: T) => void = ignore
  let reject: (error: unknown) => void = ignore
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  return { promise, resolve, reject }
}

function ignore(): void {}
