import { filtersOverlap } from '../topics/match.js'
import { isLoopback } from './listeners.js'
import { parseSmtpUrl } from './notify.js'
import { displayPath } from './options.js'
import { pushOf } from './push.js'
import type { Config } from './schema.js'

/** The bits that make a file a program. */
const executable = 0o111

/**
 * What is risky about mails, or will not work.
 *
 * @param modeOf the permission bits of a file; `undefined` where there is none
 */
export function notifyWarnings(config: Config, modeOf: (file: string) => number | undefined): string[] {
  return [...unencryptedWarnings(config), ...sendmailWarnings(config, modeOf), ...deafRuleWarnings(config)]
}

/** A mail server elsewhere gets a password, or mails, that anybody on the way can read. */
function unencryptedWarnings({ notify }: Config): string[] {
  const { smtp } = notify?.mail ?? {}
  const address = smtp && parseSmtpUrl(smtp.url)
  if (!smtp || !address || address.secure || smtp.startTLS === 'required' || isLoopback(address.host)) return []
  const what = smtp.password === undefined ? 'mails' : 'mails, and the password for them,'
  return [`notify.mail.smtp.startTLS: ${what} may go unencrypted to ${address.host}; use required`]
}

/** Mails would wait until it is there, or be given up. */
function sendmailWarnings({ notify }: Config, modeOf: (file: string) => number | undefined): string[] {
  const program = notify?.mail.sendmail
  if (program === undefined || ((modeOf(program) ?? 0) & executable) !== 0) return []
  return [`notify.mail.sendmail: there is no program ${program}; no mail goes until there is`]
}

/** What push does not get, no rule hears of. */
function deafRuleWarnings(config: Config): string[] {
  const topics = pushOf(config)?.topics ?? []
  return (config.notify?.rules ?? []).flatMap((rule, index) =>
    rule.topics.flatMap((filter, at) => {
      if (topics.some(pushed => filtersOverlap(pushed, filter))) return []
      const option = displayPath(['notify', 'rules', index, 'topics', at])
      return [`${option}: no mail ever comes of ${filter}, as push.topics (${topics.join(', ')}) has none of it`]
    }),
  )
}
