import { type Clock, systemClock } from '../../base/clock.js'
import type { Logger } from '../../base/log.js'
import { type NotifyConfig, ruleName } from '../../config/notify.js'
import type { Channel } from './channel.js'
import type { DeadLetter } from './dead-letters.js'
import { openMailer } from './mail.js'
import type { QueuedCall, QueuedMail } from './notification-queue.js'
import { webhookKey } from './rules.js'
import { openWebhookChannel } from './webhook.js'
import { eventsOf } from './webhooks.js'

export interface ChannelsOptions {
  readonly config: NotifyConfig
  /** Relative paths of the configuration begin here. */
  readonly cwd: string
  readonly clock?: Clock
  /** Timeout of a sendmail program, in milliseconds. Default: 60,000. */
  readonly sendmailTime?: number | undefined
  readonly log: Logger
}

/** The channels of a configuration. */
export interface Channels {
  readonly mails: Channel<QueuedMail> | undefined
  /** By key of the rule. */
  readonly webhooks: ReadonlyMap<string, Channel<QueuedCall>>
}

/**
 * Opens the channels of the configuration.
 *
 * @throws {StartError} if a file cannot be used
 */
export async function openChannels(
  { config, cwd, clock = systemClock, sendmailTime, log }: ChannelsOptions,
  addDeadLetter: (letter: DeadLetter) => Promise<void>,
): Promise<Channels> {
  const { mail } = config
  const webhooks = new Map<string, Channel<QueuedCall>>()
  for (const [index, rule] of config.rules.entries()) {
    if (rule.webhook === undefined) continue
    const name = ruleName(rule, index)
    const onGivenUp = (call: QueuedCall, reason: DeadLetter['reason'], error: string): Promise<void> =>
      addDeadLetter({ rule: name, reason, id: call.id, error, events: eventsOf(call) })
    const channel = await openWebhookChannel({ rule: name, config: rule.webhook, cwd, onGivenUp, clock, log })
    webhooks.set(webhookKey(name), channel)
  }
  const mails = mail && (await openMailer({ config: mail, cwd, clock, sendmailTime, log }))
  return { mails, webhooks }
}

/** Closes channels that send nothing. */
export function closeChannels({ mails, webhooks }: Channels): void {
  for (const channel of [mails, ...webhooks.values()]) channel?.close()
}
