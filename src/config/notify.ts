import { z } from 'zod'
import { webUrl } from './access.js'
import { parseTemplate, templateNames } from './templates.js'
import { duration } from './units.js'
import { file, secret, topicFilter, wholeNumber } from './values.js'

/*
 * The options of `notify:`: the alerts that are sent as mails or to webhooks, and the mail server.
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

/** Bytes of a webhook's secret (Standard Webhooks: 24 to 64). */
const [minSecret, maxSecret] = [24, 64]

/** Decodes `whsec_…`, the secret of a webhook; `undefined` for anything else. */
export function parseWebhookSecret(text: string): Buffer | undefined {
  const [, base64] = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text) ?? []
  if (base64 === undefined) return undefined
  const bytes = Buffer.from(base64, 'base64')
  const isCanonical = bytes.toString('base64').replace(/=*$/, '') === base64.replace(/=*$/, '')
  return isCanonical && bytes.length >= minSecret && bytes.length <= maxSecret ? bytes : undefined
}

export const webhookSecretForm = `whsec_ and the base64 of ${minSecret} to ${maxSecret} random bytes`

const webhookSecret = secret('secret').refine(text => parseWebhookSecret(text) !== undefined, {
  error: `must be ${webhookSecretForm}: openssl rand -base64 32 makes it`,
})

const webhook = z
  .strictObject({
    url: webUrl.describe('URL for a POST with the messages; redirects are not followed'),
    secret: webhookSecret
      .optional()
      .describe('Secret of the signatures (Standard Webhooks): whsec_ and base64')
      .meta({ writeOnly: true }),
    previousSecret: webhookSecret
      .optional()
      .describe('A second secret that signs, too, while the receiver changes to the other one')
      .meta({ writeOnly: true }),
    secretFile: file.optional().describe('File with the secret instead; a second line may have the previous one'),
    ca: file.optional().describe('File with the CA certificates that may sign the receiver’s certificate (PEM)'),
    timeout: duration({ min: '100ms', max: '1m' }).prefault('10s').describe('Timeout of a call'),
    maxEvents: wholeNumber(1, 1000)
      .default(100)
      .describe('Messages in one call, with at most 256 Ki characters of JSON'),
    maxQueued: wholeNumber(1, 100_000)
      .default(100_000)
      .describe(
        'Messages that wait, with at most 16 Mi characters of JSON (all webhooks: 64 Mi), and 256 more for each. Beyond: further ones go to the dead-letter log',
      ),
    giveUpAfter: duration({ min: '1m' })
      .prefault('2d')
      .describe(
        'How long after its messages a failed call is retried, at intervals of 1 s to 5 min; after that, they go to the dead-letter log',
      ),
  })
  .superRefine(({ secret: own, previousSecret, secretFile }, context) => {
    if (context.issues.length > 0) return
    if ((own === undefined) === (secretFile === undefined))
      context.addIssue('needs exactly one of secret and secretFile')
    else if (previousSecret !== undefined && own === undefined)
      context.addIssue('previousSecret: needs secret beside it; a secretFile has it in its second line')
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
    to: z.array(address).min(1).max(100).optional().describe('Recipients of mails'),
    webhook: webhook.optional().describe('A web service that gets the messages instead'),
    subject: template(500).optional().describe(`Subject of mails, with ${places}; default: one that suits the message`),
    text: template(16_384).optional().describe('Text of mails, with the same placeholders'),
    collect: duration({ min: '0ms', max: '1d' })
      .optional()
      .describe(
        'How long messages after the first one are collected in the same mail or call; default: 10s, for a webhook 100ms',
      ),
    atMost: z
      .strictObject({
        count: wholeNumber(1, 1000).default(20).describe('Number of mails or calls'),
        per: duration({ min: '1s', max: '24d' }).prefault('1h').describe('within this time'),
      })
      .optional()
      .describe(
        'Maximum rate; messages beyond it are collected in the next mail or call. Default: 20 mails per 1h, for a webhook any',
      ),
  })
  .superRefine(({ topics, events, to, webhook: hook, subject, text }, context) => {
    if (context.issues.length > 0) return
    if (topics.length + events.length === 0) context.addIssue('is about nothing: needs topics or events')
    if ((to === undefined) === (hook === undefined)) context.addIssue('needs exactly one of to and webhook')
    else if (hook !== undefined && (subject ?? text) !== undefined)
      context.addIssue('subject and text are those of mails: a webhook gets the messages themselves')
  })

/** `notify:`, the mails and the calls of webhooks. */
export const notify = z
  .strictObject({
    mail: mail.optional().describe('How mails are sent; rules with recipients need it'),
    rules: z.array(rule).min(1).max(1000).describe('The alerts'),
  })
  .superRefine(({ mail: settings, rules }, context) => {
    if (context.issues.length > 0 || settings !== undefined) return
    if (rules.some(({ to }) => to !== undefined)) context.addIssue('needs mail, which sends the mails of its rules')
  })

/** `notify:` as the program uses it. */
export type NotifyConfig = z.output<typeof notify>
export type MailConfig = NonNullable<NotifyConfig['mail']>
export type RuleConfig = NotifyConfig['rules'][number]
export type WebhookCallConfig = NonNullable<RuleConfig['webhook']>

/** How long a rule collects, in milliseconds, and its maximum rate: as configured, or the default of mails or webhooks. */
export function paceOf({ collect, atMost, webhook: hook }: RuleConfig): {
  readonly collect: number
  readonly atMost: { readonly count: number; readonly per: number } | undefined
} {
  const defaults = hook === undefined ? mailPace : { collect: 100, atMost: undefined }
  return { collect: collect ?? defaults.collect, atMost: atMost ?? defaults.atMost }
}

const mailPace = { collect: 10_000, atMost: { count: 20, per: 3_600_000 } }

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
