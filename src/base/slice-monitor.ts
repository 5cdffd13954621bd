/** Kinds of work in the event loop. */
export const sliceCauses = [
  'mqtt packets',
  'http request',
  'http body',
  'web socket',
  'push events',
  'push writes',
  'replay',
  'journal',
  'retained messages',
  'sessions',
  'subscriptions',
  'clients',
  'other task',
] as const
export type SliceCause = (typeof sliceCauses)[number]

/** The origin of work: a client of the broker, an HTTP request, or a network. */
export type SliceSource =
  | { readonly peer: { readonly address: string }; readonly clientId?: string | undefined }
  | { readonly url?: string | undefined; readonly socket: { readonly remoteAddress?: string | undefined } }
  | { readonly group?: string | undefined }

/** Slow slices of one cause. */
export interface SliceFigures {
  readonly count: number
  /** Total, in seconds. */
  readonly seconds: number
  /** The longest, in seconds. */
  readonly longest: number
}

export interface SliceMonitorOptions {
  /** Called with the longest slow slice since the last call, at most once per second. */
  readonly onSlow: (fields: Readonly<Record<string, unknown>>) => void
  /** Minimum length of a slow slice, in milliseconds. Default: 20. */
  readonly threshold?: number
  readonly now?: () => number
}

const defaultThreshold = 20
/** Minimum time between two calls of `onSlow`, in milliseconds. */
const interval = 1000

interface Slice {
  readonly cause: SliceCause
  readonly source: SliceSource | undefined
  readonly milliseconds: number
}

/**
 * Attributes the time of the event loop to causes. A slice starts with `begin`, and ends with the next `begin` or with the tick
 * (`setImmediate`); promises and callbacks of the same tick belong to it.
 */
export class SliceMonitor {
  readonly #options: SliceMonitorOptions
  readonly #threshold: number
  readonly #now: () => number
  readonly #figures = new Map<SliceCause, { count: number; seconds: number; longest: number }>(
    sliceCauses.map(cause => [cause, { count: 0, seconds: 0, longest: 0 }]),
  )
  #cause: SliceCause | undefined
  #source: SliceSource | undefined
  #since = 0
  #reportedAt = Number.NEGATIVE_INFINITY
  /** Slow slices since the last report: the longest, and their number. */
  #longest: Slice | undefined
  #unreported = 0
  #timer: NodeJS.Timeout | undefined

  constructor(options: SliceMonitorOptions) {
    this.#options = options
    this.#threshold = options.threshold ?? defaultThreshold
    this.#now = options.now ?? (() => performance.now())
  }

  get figures(): ReadonlyMap<SliceCause, SliceFigures> {
    return this.#figures
  }

  /** Starts a slice. Call it for each read of a socket, each request and each part of a long task, not for each message. */
  begin(cause: SliceCause, source?: SliceSource): void {
    const now = this.#now()
    if (this.#cause === undefined) setImmediate(this.#end)
    else if (now - this.#since >= this.#threshold) this.#slow(now - this.#since)
    this.#cause = cause
    this.#source = source
    this.#since = now
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  readonly #end = (): void => {
    const milliseconds = this.#now() - this.#since
    if (milliseconds >= this.#threshold) this.#slow(milliseconds)
    this.#cause = undefined
    this.#source = undefined
  }

  #slow(milliseconds: number): void {
    if (this.#cause === undefined) return
    const figures = this.#figures.get(this.#cause)
    if (figures) {
      figures.count++
      figures.seconds += milliseconds / 1000
      figures.longest = Math.max(figures.longest, milliseconds / 1000)
    }
    this.#unreported++
    if (milliseconds > (this.#longest?.milliseconds ?? 0)) {
      this.#longest = { cause: this.#cause, source: this.#source, milliseconds }
    }
    const wait = this.#reportedAt + interval - this.#now()
    if (wait <= 0) this.#report()
    else this.#timer ??= setTimeout(this.#report, wait).unref()
  }

  readonly #report = (): void => {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const slice = this.#longest
    if (!slice) return
    const others = this.#unreported - 1
    this.#longest = undefined
    this.#unreported = 0
    this.#reportedAt = this.#now()
    const { cause, source, milliseconds } = slice
    this.#options.onSlow({
      cause,
      ms: Math.round(10 * milliseconds) / 10,
      ...(source && describe(source)),
      ...(others > 0 && { others }),
    })
  }
}

/** Fields for the log; only the path of a URL, as its query may hold a ticket. */
function describe(source: SliceSource): Record<string, unknown> {
  if ('peer' in source) return { peer: source.peer.address, clientId: source.clientId }
  if ('socket' in source) return { peer: source.socket.remoteAddress, path: source.url?.split('?', 1)[0] }
  return { network: source.group }
}
