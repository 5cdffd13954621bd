import { z } from 'zod'
import { parseTemplate, templateNames } from './templates.js'
import { duration } from './units.js'
import { file, secret, topicFilter, wholeNumber } from './values.js'

/*
 * The options of `notify:`: the alerts that are sent as mails, and the mail server.
 */

const noControls = /^\P{Cc}*$/u
const addressForm = /^(?:[^<>,@]*<[^\s<>,;:"()]+@[^\s<>,;:"()]+>|[^\s<>,;:"()]+@[^\s<>,;:"()]+)$/

const address = z.string().refine(text => addressForm.test(text) && noControls.test(text) && text.length <= 320, {
  error: 'must be one address, such as ops@example.org or Ops <ops@example.org>',
})

const places = `${templateNames.map(name => `{${name}}`).join(', ')} and {json.member}`
const template = (max: number) =>
  z
    .string()
    .min(1)
    .max(max)
    .refine(text => parseTemplate(text) !== undefined, {
      error: `must have no other placeholders than ${places}; a { itself is {{`,
    })

const smtp = z.strictObject({
  url: z
    .string()
    .refine(text => parseSmtpUrl(text) !== undefined, {
      error: 'must be smtp://host:port or smtps://host:port, without a user name or a password in it',
    })
    .describe('smtp://host (port 587) or smtps://host (port 465: TLS from the start)'),
  username: z.string().min(1).optional().describe('User name to log in with'),
  password: secret('password').optional().describe('Its password').meta({ writeOnly: true }),
  startTLS: z
    .enum(['required', 'opportunistic', 'off'])
    .default('required')
    .describe('STARTTLS with smtp://: required, opportunistic (if the server supports it), or off'),
  ca: file.optional().describe('File with the CA certificates that may sign the server’s certificate (PEM)'),
})

const mail = z
  .strictObject({
    from: address.describe('Sender'),
    smtp: smtp.optional().describe('Mail server'),
    sendmail: file.optional().describe('Program that sends mails instead, such as /usr/sbin/sendmail'),
    subjectPrefix: z
      .string()
      .regex(noControls, { error: 'must be without control characters' })
      .max(100)
      .optional()
      .describe('Prefix of subjects, followed by a colon'),
    giveUpAfter: duration({ min: '1m' })
      .prefault('2d')
      .describe(
        'How long a failed mail is retried, at intervals of 30 s to 1 h; after that, it is dropped with an error in the log',
      ),
    maxQueued: wholeNumber(1, 100_000)
      .default(1000)
      .describe(
        'Queued mails, one for each recipient, with at most 32 Mi characters of text. Beyond: further messages are collected until there is room',
      ),
  })
  .superRefine(({ smtp: server, sendmail }, context) => {
    if (context.issues.length > 0) return
    if ((server === undefined) === (sendmail === undefined)) context.addIssue('needs exactly one of smtp and sendmail')
    if (server?.password !== undefined && server.username === undefined)
      context.addIssue('smtp.password: needs username beside it')
  })

const memberValue = z.union([z.string(), z.number(), z.boolean()], { error: 'must be a text, a number, true or false' })

const rule = z
  .strictObject({
    name: z
      .string()
      .regex(/^[\w.-][\w .-]{0,63}$/, { error: 'must have 1 to 64 letters, digits, spaces and any of . - _' })
      .optional()
      .describe('Name in the log and of its stored state; default: rule-1, rule-2 and so on'),
    topics: z.array(topicFilter).default([]).describe('Topic filters of its messages'),
    events: z
      .array(z.enum(['broker-away', 'broker-back']))
      .default([])
      .describe('Other events: the broker is unreachable for 30 s, or is back after that'),
    when: z
      .record(z.string().min(1), z.union([memberValue, z.array(memberValue).min(1)]))
      .default({})
      .describe(
        'Required members of the JSON payload (a.b for a nested one), each with its value or a list of accepted values',
      ),
    processes: z
      .array(z.string().regex(/^[^:]+(:[^:]+)?$/, { error: 'must be name, group:name or group:*' }))
      .min(1)
      .optional()
      .describe('Only these processes of supervisord: name, group:name or group:*'),
    to: z.array(address).min(1).max(100).describe('Recipients'),
    subject: template(500).optional().describe(`Subject, with ${places}; default: one that suits the message`),
    text: template(16_384).optional().describe('Text, with the same placeholders'),
    collect: duration({ min: '0ms', max: '1d' })
      .prefault('10s')
      .describe('How long messages after the first one are collected in the same mail'),
    atMost: z
      .strictObject({
        count: wholeNumber(1, 1000).default(20).describe('Number of mails'),
        per: duration({ min: '1s', max: '24d' }).prefault('1h').describe('within this time'),
      })
      .prefault({})
      .describe('Maximum rate of mails; messages beyond it are collected in the next mail'),
  })
  .superRefine(({ topics, events }, context) => {
    if (topics.length + events.length === 0) context.addIssue('is about nothing: needs topics or events')
  })

/** `notify:`, the mails. */
export const notify = z.strictObject({
  mail: mail.describe('How mails are sent'),
  rules: z.array(rule).min(1).max(1000).describe('The alerts'),
})

/** `notify:` as the program uses it. */
export type NotifyConfig = z.output<typeof notify>
export type MailConfig = NotifyConfig['mail']
export type RuleConfig = NotifyConfig['rules'][number]

/** Name of a rule; all differ. */
export function ruleName({ name }: RuleConfig, index: number): string {
  return name ?? `rule-${index + 1}`
}

/** Where a mail server is. */
export interface SmtpAddress {
  readonly host: string
  readonly port: number
  /** Whether TLS is spoken from the start. */
  readonly secure: boolean
}

/** Reads `smtp://host[:587]` or `smtps://host[:465]`; `undefined` for anything else. */
export function parseSmtpUrl(text: string): SmtpAddress | undefined {
  if (!/^smtps?:\/\/[^/?#@\s]+\/?$/.test(text) || !URL.canParse(text)) return undefined
  const { protocol, hostname, port } = new URL(text)
  if (hostname === '' || port === '0') return undefined
  const secure = protocol === 'smtps:'
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (secure ? 465 : 587) : Number(port),
    secure,
  }
}
