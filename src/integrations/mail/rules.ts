import { type RuleConfig, ruleName } from '../../config/notify.js'
import { parseTemplate, type TemplateName, type TemplatePart } from '../../config/templates.js'
import { type TopicPredicate, topicPredicate } from '../../topics/match.js'
import { type Alert, memberOf, shown } from './alert.js'
import { whenOf, wordingOf } from './format.js'

/** What a mail says of one occurrence. */
export interface Entry {
  readonly subject: string
  readonly text: string
  readonly topic: string
  /** Milliseconds since 1970. */
  readonly time: number
}

/** One rule, ready for use. */
export interface Rule {
  readonly name: string
  readonly config: RuleConfig
  readonly wantsTopic: TopicPredicate
  /** What a mail says of an occurrence; `undefined` where the rule is not about it. */
  entryOf(occurrence: Alert): Entry | undefined
}

/** Characters of a subject, and of what a mail says of one occurrence. */
const [maxSubject, maxText] = [200, 32_768]

/** Makes the rules of the configuration ready, which is valid. */
export function compileRules(configs: readonly RuleConfig[]): readonly Rule[] {
  return configs.map((config, index) => {
    const name = ruleName(config, index)
    const conditions = Object.entries(config.when).map(([member, wanted]) => {
      const values: readonly unknown[] = [wanted].flat()
      const path = member.split('.')
      return (json: unknown) => values.includes(memberOf(json, path))
    })
    const wantsProcess = processPredicate(config.processes)
    const subject = config.subject === undefined ? undefined : (parseTemplate(config.subject) ?? [])
    const text = config.text === undefined ? undefined : (parseTemplate(config.text) ?? [])
    return {
      name,
      config,
      wantsTopic: config.topics.length === 0 ? () => false : topicPredicate(config.topics),
      entryOf: occurrence => {
        if (!conditions.every(holds => holds(occurrence.json)) || !wantsProcess(occurrence.json)) return undefined
        const usual = wordingOf(occurrence)
        return {
          subject: cut(oneLine(subject ? fill(subject, occurrence, name) : usual.subject), maxSubject),
          text: cut(legible(text ? fill(text, occurrence, name) : usual.text), maxText),
          topic: cut(occurrence.topic, maxSubject),
          time: occurrence.time,
        }
      },
    }
  })
}

/** `name`, `group:name`, `group:*`, as supervisorctl names processes. */
function processPredicate(processes: readonly string[] | undefined): (json: unknown) => boolean {
  if (processes === undefined) return () => true
  const wanted = new Set(processes)
  return json => {
    const name = memberOf(json, ['processname'])
    const group = memberOf(json, ['groupname'])
    if (typeof name !== 'string') return false
    return [name, ...(typeof group === 'string' ? [`${group}:${name}`, `${group}:*`] : [])].some(form =>
      wanted.has(form),
    )
  }
}

function fill(parts: readonly TemplatePart[], occurrence: Alert, rule: string): string {
  const values: Record<TemplateName, () => string> = {
    topic: () => occurrence.topic,
    payload: () => occurrence.text,
    time: () => whenOf(occurrence.time),
    id: () => occurrence.id,
    rule: () => rule,
  }
  return parts
    .map(part => {
      if ('text' in part) return part.text
      return 'name' in part ? values[part.name]() : shown(memberOf(occurrence.json, part.member))
    })
    .join('')
}

/** Not in the middle of a character. */
function cut(text: string, length: number): string {
  const isWithin = /[\ud800-\udbff]/.test(text.charAt(length - 1))
  return text.slice(0, text.length > length && isWithin ? length - 1 : length)
}

/** What no text has, and what a terminal would take for orders, is a space. */
function legible(text: string): string {
  return whole(text.replace(/[^\P{Cc}\t\n\r]/gu, ' '))
}

/** JSON may have half a character, which no mail may. */
function whole(text: string): string {
  return text.replace(/\p{Cs}/gu, '\ufffd')
}

/** A subject is one header: what would end its line is a space (RFC 5322 §2.2). */
export function oneLine(text: string): string {
  return whole(text.replace(/[\p{Cc}\u2028\u2029]+/gu, ' ').trim())
}
