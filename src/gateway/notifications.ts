import type { Logger } from '../base/log.js'
import type { Metrics, NotificationFigures } from '../base/metrics.js'
import type { NotifyConfig } from '../config/notify.js'
import type { Notify, NotifyOptions } from '../integrations/notify/notify.js'
import type { Store } from '../storage/store.js'
import type { Coordination } from './coordination.js'

export interface NotificationsOptions
  extends Pick<NotifyOptions, 'hub' | 'journal' | 'isConnected' | 'encode' | 'deadLetters'> {
  /** Opens the queue of this gateway. */
  readonly openStore: () => Promise<Store>
  /** Among several gateways, one sends. */
  readonly coordination: Coordination | undefined
  readonly cwd: string
  readonly log: Logger
  readonly metrics: Metrics
}

/** The mails and webhook calls of the configuration. Their queue stays open while the configuration changes. */
export class Notifications {
  readonly #options: NotificationsOptions
  #store: Store | undefined
  #config: NotifyConfig | undefined
  #current: Notify | undefined
  #isWatched = false

  constructor(options: NotificationsOptions) {
    this.#options = options
  }

  /** @throws {StartError} if the store or a file cannot be used; the former rules apply then */
  async open(config: NotifyConfig | undefined): Promise<void> {
    const former = this.#config
    await this.#current?.close()
    this.#current = undefined
    try {
      this.#current = config && (await this.#start(config))
      this.#config = config
    } catch (error) {
      this.#current = former && (await this.#startAgain(former))
      throw error
    }
  }

  async #startAgain(former: NotifyConfig): Promise<Notify | undefined> {
    try {
      return await this.#start(former)
    } catch (error) {
      this.#options.log.error(
        { err: error },
        'Failed to open notify again: nothing is sent until a reload or a restart',
      )
      return undefined
    }
  }

  /** Imports on demand. */
  async #start(config: NotifyConfig): Promise<Notify> {
    const { openStore, coordination, metrics, ...options } = this.#options
    this.#watch(metrics)
    if (coordination) {
      const { openSharedNotify } = await import('../integrations/notify/shared-notify.js')
      const { coordinator, catchUp } = coordination
      return openSharedNotify({
        ...{ ...options, config, coordinator, catchUp },
        isConnected: () => coordinator.isBrokerRead,
        openStore: token => coordination.openStore('notify', token),
      })
    }
    const { openNotify } = await import('../integrations/notify/notify.js')
    this.#store ??= await openStore()
    const store = this.#store
    // Without `close`: it stays open for the next rules.
    return openNotify({ ...options, config, store: keptOpen(store) })
  }

  #watch(metrics: Metrics): void {
    if (this.#isWatched) return
    this.#isWatched = true
    metrics.watchMails(() => this.#current?.figures.mails ?? noMails)
    metrics.watchWebhooks(() => this.#current?.figures.webhooks ?? new Map())
  }

  async close(): Promise<void> {
    await this.#current?.close()
    await this.#store?.close()
  }
}

const noMails: NotificationFigures = { sent: 0, failed: 0, retried: 0, waiting: 0, collected: 0, dropped: 0 }

function keptOpen(store: Store): Store {
  return {
    get: key => store.get(key),
    range: (range, limit) => store.range(range, limit),
    batch: changes => store.batch(changes),
    clear: range => store.clear(range),
    close: async () => {},
  }
}
