import { type RuleConfig, ruleName } from '../../config/notify.js'
import { parseTemplate, type TemplateName, type TemplatePart } from '../../config/templates.js'
import { type TopicPredicate, topicPredicate } from '../../topics/match.js'
import { type Alert, memberOf, valueText } from './alert.js'
import { formatAlert, formatTime } from './format.js'

/** The part of a mail or a call about one alert. */
export interface Entry {
  /** Of a mail; empty in a call. */
  readonly subject: string
  /** Text in a mail; JSON in a call. */
  readonly text: string
  /** Of a mail; empty in a call. */
  readonly topic: string
  /** Milliseconds since 1970. */
  readonly time: number
}

/** A compiled rule. */
export interface Rule {
  readonly name: string
  /** Its key in the queue: rules of mails and of webhooks with the same name have different ones. */
  readonly key: string
  readonly config: RuleConfig
  readonly wantsTopic: TopicPredicate
  /** The entry for an alert; `undefined` if the rule does not apply to it. */
  entryOf(alert: Alert): Entry | undefined
}

/** Maximum characters of a subject, and of the text of one entry. */
const [maxSubject, maxText] = [200, 32_768]

/** Makes the text of an entry, which has a valid form whatever the alert. */
type EntryMaker = (alert: Alert) => Entry

/** Key of a webhook's rule in the queue. A name has no colon. */
export function webhookKey(name: string): string {
  return `${webhookPrefix}${name}`
}

/** The name of a webhook's rule by its key; `undefined` for a rule of mails. */
export function webhookName(key: string): string | undefined {
  return key.startsWith(webhookPrefix) ? key.slice(webhookPrefix.length) : undefined
}

const webhookPrefix = 'webhook:'

/**
 * Compiles the rules of a valid configuration.
 *
 * @param eventJson makes the JSON of an alert for calls
 */
export function compileRules(configs: readonly RuleConfig[], eventJson: (alert: Alert) => string): readonly Rule[] {
  return configs.map((config, index) => {
    const name = ruleName(config, index)
    const conditions = Object.entries(config.when).map(([member, wanted]) => {
      const values: readonly unknown[] = [wanted].flat()
      const path = member.split('.')
      return ({ json }: Alert) => values.includes(memberOf(json, path))
    })
    const wantsProcess = processPredicate(config.processes)
    const toEntry: EntryMaker =
      config.webhook === undefined
        ? mailEntry(config, name)
        : alert => ({ subject: '', text: eventJson(alert), topic: '', time: alert.time })
    return {
      name,
      key: config.webhook === undefined ? name : webhookKey(name),
      config,
      wantsTopic: config.topics.length === 0 ? () => false : topicPredicate(config.topics),
      entryOf: alert => {
        if (!conditions.every(holds => holds(alert)) || !wantsProcess(alert)) return undefined
        return toEntry(alert)
      },
    }
  })
}

function mailEntry(config: RuleConfig, rule: string): EntryMaker {
  const subject = config.subject === undefined ? undefined : (parseTemplate(config.subject) ?? [])
  const text = config.text === undefined ? undefined : (parseTemplate(config.text) ?? [])
  return alert => {
    const defaults = formatAlert(alert)
    return {
      subject: truncate(oneLine(subject ? fill(subject, alert, rule) : defaults.subject), maxSubject),
      text: truncate(printable(text ? fill(text, alert, rule) : defaults.text), maxText),
      topic: truncate(alert.topic, maxSubject),
      time: alert.time,
    }
  }
}

/** `name`, `group:name`, `group:*`, as supervisorctl names processes. */
function processPredicate(processes: readonly string[] | undefined): (alert: Alert) => boolean {
  if (processes === undefined) return () => true
  const wanted = new Set(processes)
  return ({ json }) => {
    const name = memberOf(json, ['processname'])
    const group = memberOf(json, ['groupname'])
    if (typeof name !== 'string') return false
    return [name, ...(typeof group === 'string' ? [`${group}:${name}`, `${group}:*`] : [])].some(form =>
      wanted.has(form),
    )
  }
}

function fill(parts: readonly TemplatePart[], alert: Alert, rule: string): string {
  const values: Record<TemplateName, () => string> = {
    topic: () => alert.topic,
    payload: () => alert.text,
    time: () => formatTime(alert.time),
    id: () => alert.id,
    rule: () => rule,
  }
  return parts
    .map(part => {
      if ('text' in part) return part.text
      return 'name' in part ? values[part.name]() : valueText(memberOf(alert.json, part.member))
    })
    .join('')
}

/** Truncates between characters. */
function truncate(text: string, length: number): string {
  const isWithin = /[\ud800-\udbff]/.test(text.charAt(length - 1))
  return text.slice(0, text.length > length && isWithin ? length - 1 : length)
}

/** Replaces control characters by spaces. */
function printable(text: string): string {
  return wellFormed(text.replace(/[^\P{Cc}\t\n\r]/gu, ' '))
}

/** Replaces lone surrogates, which JSON may contain. */
function wellFormed(text: string): string {
  return text.replace(/\p{Cs}/gu, '\ufffd')
}

/** Replaces line ends by spaces: a subject is one header field (RFC 5322 §2.2). */
export function oneLine(text: string): string {
  return wellFormed(text.replace(/[\p{Cc}\u2028\u2029]+/gu, ' ').trim())
}
