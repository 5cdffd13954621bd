/** Kinds of work that the event loop does. */
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
  'other task',
] as const
export type SliceCause = (typeof sliceCauses)[number]

/** For whom work is done: a client of the broker, an HTTP request, or a network whose clients share their turns. */
export type SliceSource =
  | { readonly peer: { readonly address: string }; readonly clientId?: string | undefined }
  | { readonly url?: string | undefined; readonly socket: { readonly remoteAddress?: string | undefined } }
  | { readonly sharesTurnWith?: string | undefined }

/** Slow slices of one cause since the start. */
export interface SliceFigures {
  readonly count: number
  /** All of them together, in seconds. */
  readonly seconds: number
  /** The longest one, in seconds. */
  readonly longest: number
}

/** Collaborators of a slice monitor. */
export interface SliceMonitorOptions {
  /** Called with each slow slice that is to be logged: the longest since the last call, at most one per second. */
  readonly onSlow: (fields: Readonly<Record<string, unknown>>) => void
  /** From which length on a slice is slow, in milliseconds; 20 when left out. */
  readonly threshold?: number
  readonly now?: () => number
}

const defaultThreshold = 20
/** Between two calls of `onSlow`, in milliseconds. */
const interval = 1000

interface Slice {
  readonly cause: SliceCause
  readonly source: SliceSource | undefined
  readonly milliseconds: number
}

/**
 * Attributes the time of the event loop to causes. A slice begins where a part of the program says what it begins to work on, and ends
 * where the next one begins, or when the loop has come around (`setImmediate`): promises and callbacks that follow in the same turn
 * count as the part of what began last. So one slice costs one look at the clock (under 100 ns), and an idle loop costs nothing.
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
  #toldAt = Number.NEGATIVE_INFINITY
  /** Slow slices that were not told yet: the longest, and how many there are. */
  #longest: Slice | undefined
  #untold = 0
  #timer: NodeJS.Timeout | undefined

  constructor(options: SliceMonitorOptions) {
    this.#options = options
    this.#threshold = options.threshold ?? defaultThreshold
    this.#now = options.now ?? (() => performance.now())
  }

  get figures(): ReadonlyMap<SliceCause, SliceFigures> {
    return this.#figures
  }

  /** Begins a slice. Call it for each read of a socket, each request and each part of a long task; not for each message. */
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
    this.#untold++
    if (milliseconds > (this.#longest?.milliseconds ?? 0)) {
      this.#longest = { cause: this.#cause, source: this.#source, milliseconds }
    }
    const wait = this.#toldAt + interval - this.#now()
    if (wait <= 0) this.#tell()
    else this.#timer ??= setTimeout(this.#tell, wait).unref()
  }

  readonly #tell = (): void => {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const slice = this.#longest
    if (!slice) return
    const others = this.#untold - 1
    this.#longest = undefined
    this.#untold = 0
    this.#toldAt = this.#now()
    const { cause, source, milliseconds } = slice
    this.#options.onSlow({
      cause,
      ms: Math.round(10 * milliseconds) / 10,
      ...(source && describe(source)),
      ...(others > 0 && { others }),
    })
  }
}

/** Fields for the log; of a URL the path alone, as tickets and tokens may be in its query. */
function describe(source: SliceSource): Record<string, unknown> {
  if ('peer' in source) return { peer: source.peer.address, clientId: source.clientId }
  if ('socket' in source) return { peer: source.socket.remoteAddress, path: source.url?.split('?', 1)[0] }
  return { network: source.sharesTurnWith }
}
