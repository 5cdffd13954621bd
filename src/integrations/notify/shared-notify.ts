import { systemClock } from '../../base/clock.js'
import type { MailFigures } from '../../base/metrics.js'
import { CoordinatedPart, type Coordinator } from '../../storage/coordinator.js'
import type { Store } from '../../storage/store.js'
import { openMailer } from './mail.js'
import { type Notify, type NotifyOptions, openNotify } from './notify.js'

export interface SharedNotifyOptions extends Omit<NotifyOptions, 'store' | 'isSender'> {
  readonly coordinator: Coordinator
  /** Opens the store that gateways share, for the holder of a token. */
  readonly openStore: (token: string) => Store
  /** Has the journal read what other gateways have appended. */
  readonly catchUp: () => Promise<void>
}

/**
 * Sends mails while this gateway is the coordinator of several.
 *
 * @throws {StartError} if a file cannot be used
 */
export async function openSharedNotify(options: SharedNotifyOptions): Promise<Notify> {
  const { config, cwd, clock = systemClock } = options
  // Found out now, and not when another gateway ends.
  const mailer = await openMailer(config.mail, cwd, { clock })
  mailer.close()
  return new SharedNotify(options)
}

class SharedNotify implements Notify {
  readonly #part: CoordinatedPart<Notify>
  /** Counts of earlier times as the coordinator. */
  #earlier: MailFigures = { sent: 0, failed: 0, retried: 0, waiting: 0, collected: 0, dropped: 0 }

  constructor({ coordinator, openStore, catchUp, ...options }: SharedNotifyOptions) {
    const open = async (token: string): Promise<Notify> => {
      // Otherwise the stored cursor could be newer than this gateway's copy of the journal.
      await catchUp()
      const isSender = (): boolean => coordinator.token === token
      const notify = await openNotify({ ...options, store: openStore(token), isSender })
      options.log.info('this gateway sends the mails')
      return {
        get figures() {
          return notify.figures
        },
        close: async () => {
          await notify.close()
          this.#earlier = { ...sum(this.#earlier, notify.figures), waiting: 0 }
        },
      }
    }
    this.#part = new CoordinatedPart(coordinator, open, options.log)
  }

  get figures(): MailFigures {
    const { current } = this.#part
    return current ? sum(this.#earlier, current.figures) : this.#earlier
  }

  close(): Promise<void> {
    return this.#part.close()
  }
}

function sum(one: MailFigures, other: MailFigures): MailFigures {
  return {
    sent: one.sent + other.sent,
    failed: one.failed + other.failed,
    retried: one.retried + other.retried,
    waiting: one.waiting + other.waiting,
    collected: one.collected + other.collected,
    dropped: one.dropped + other.dropped,
  }
}
