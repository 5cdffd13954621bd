import type { NotificationFigures } from '../../base/metrics.js'
import { CoordinatedPart, type Coordinator } from '../../storage/coordinator.js'
import type { Store } from '../../storage/store.js'
import { closeChannels, openChannels } from './channels.js'
import { type Notify, type NotifyFigures, type NotifyOptions, openNotify } from './notify.js'

export interface SharedNotifyOptions extends Omit<NotifyOptions, 'store' | 'isSender'> {
  readonly coordinator: Coordinator
  /** Opens the store that gateways share, for the holder of a token. */
  readonly openStore: (token: string) => Store
  /** Has the journal read what other gateways have appended. */
  readonly catchUp: () => Promise<void>
}

/**
 * Sends mails and calls webhooks while this gateway is the coordinator of several.
 *
 * @throws {StartError} if a file cannot be used
 */
export async function openSharedNotify(options: SharedNotifyOptions): Promise<Notify> {
  // Invalid files are found now, and not when another gateway ends.
  closeChannels(await openChannels(options, async () => {}))
  return new SharedNotify(options)
}

class SharedNotify implements Notify {
  readonly #part: CoordinatedPart<Notify>
  /** Counts of earlier times as the coordinator. */
  #earlier: NotifyFigures = { mails: none, webhooks: new Map() }

  constructor({ coordinator, openStore, catchUp, ...options }: SharedNotifyOptions) {
    const open = async (token: string): Promise<Notify> => {
      // Otherwise the stored cursor could be newer than this gateway's copy of the journal.
      await catchUp()
      const isSender = (): boolean => coordinator.token === token
      const notify = await openNotify({ ...options, store: openStore(token), isSender })
      options.log.info('this gateway sends the mails and calls the webhooks')
      return {
        get figures() {
          return notify.figures
        },
        close: async () => {
          await notify.close()
          this.#earlier = withoutWaiting(sum(this.#earlier, notify.figures))
        },
      }
    }
    this.#part = new CoordinatedPart(coordinator, open, options.log)
  }

  get figures(): NotifyFigures {
    const { current } = this.#part
    return current ? sum(this.#earlier, current.figures) : this.#earlier
  }

  close(): Promise<void> {
    return this.#part.close()
  }
}

const none: NotificationFigures = { sent: 0, failed: 0, retried: 0, waiting: 0, collected: 0, dropped: 0 }

function sum(one: NotifyFigures, other: NotifyFigures): NotifyFigures {
  const webhooks = new Map(one.webhooks)
  for (const [rule, figures] of other.webhooks) webhooks.set(rule, add(webhooks.get(rule) ?? none, figures))
  return { mails: add(one.mails, other.mails), webhooks }
}

function withoutWaiting({ mails, webhooks }: NotifyFigures): NotifyFigures {
  const calls = [...webhooks].map(([rule, figures]) => [rule, { ...figures, waiting: 0 }] as const)
  return { mails: { ...mails, waiting: 0 }, webhooks: new Map(calls) }
}

function add(one: NotificationFigures, other: NotificationFigures): NotificationFigures {
  return {
    sent: one.sent + other.sent,
    failed: one.failed + other.failed,
    retried: one.retried + other.retried,
    waiting: one.waiting + other.waiting,
    collected: one.collected + other.collected,
    dropped: one.dropped + other.dropped,
  }
}
