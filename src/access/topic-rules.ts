import type { Identity } from '../base/identity.js'
import type { AccessConfig, AccessRule } from '../config/access.js'
import { filterCovers, topicPredicate } from '../topics/match.js'
import { parseRuleFilter, type RulePart } from '../topics/rule-filter.js'
import { isTopicFilter, isTopicName, type TopicBounds, topicFilterProblem } from '../topics/topic-syntax.js'

/** What one connection may do. Asked for every message and every subscription. */
export interface Permissions {
  /** Whether `topic` is a topic to publish to, and one that they may publish to; for retained messages and wills too. */
  mayPublish(topic: string): boolean
  /** Whether `filter` is a filter to subscribe to, and matches no topic that they may not read. */
  maySubscribe(filter: string): boolean
  /** Whether `topic` is one that they may read: for what was kept for them under other rules. */
  mayRead(topic: string): boolean
  /** Filters that give nothing, because a name that is to stand in them holds `+`, `#` or `/`, or is not known. */
  readonly dropped: readonly string[]
}

/** A client id that is not known, because there is none: over HTTP, and before the CONNECT. */
export type ClientId = string | undefined

interface Template {
  readonly source: string
  readonly parts: readonly RulePart[]
}

interface CompiledRule {
  readonly to: AccessRule['to']
  readonly publish: readonly Template[]
  readonly subscribe: readonly Template[]
}

/** As many different sets of rules are kept ready; what depends on a name is made for each connection. */
const maxKept = 256

/**
 * The rules of the configuration, ready to be asked what somebody may do:
 * - no `access:` at all: everything
 * - `access:` without rules: whoever is let in may do everything, except on topics that begin with `$`; but whoever brings
 *   rules of their own (a token, a webhook's answer) has only these
 * - with rules: what they give, and what somebody brings; a topic that begins with `$` only where a rule names it so
 */
export class TopicRules {
  readonly #rules: readonly CompiledRule[] | undefined
  readonly #open: boolean
  readonly #bounds: TopicBounds
  readonly #kept = new Map<string, Permissions>()

  constructor(access: Pick<AccessConfig, 'rules'> | undefined, bounds: TopicBounds) {
    this.#open = access === undefined
    this.#bounds = bounds
    this.#rules = access?.rules?.map(({ to, publish, subscribe }) => ({
      to,
      publish: publish.map(compileTemplate),
      subscribe: subscribe.map(compileTemplate),
    }))
  }

  /** What `identity` may do on a connection whose client calls itself `clientId`. Cheap where no rule holds `%`. */
  for(identity: Identity, clientId?: ClientId): Permissions {
    if (this.#open) return this.#keep('open', () => permissions([], [], this.#bounds, { open: true }))
    const own = identity.rules
    if (this.#rules === undefined && own === undefined) {
      return this.#keep('everything', () =>
        permissions([{ source: '#', parts: [{ text: '#' }] }], undefined, this.#bounds),
      )
    }
    const applying = (this.#rules ?? []).filter(({ to }) => isFor(to, identity))
    const make = (): Permissions => {
      const publish = [...applying.flatMap(rule => rule.publish), ...(own?.publish ?? []).map(compileTemplate)]
      const subscribe = [...applying.flatMap(rule => rule.subscribe), ...(own?.subscribe ?? []).map(compileTemplate)]
      return permissions(publish, subscribe, this.#bounds, { identity, clientId })
    }
    if (own !== undefined || applying.some(dependsOnNames)) return make()
    return this.#keep(applying.map(rule => this.#rules?.indexOf(rule)).join(), make)
  }

  #keep(key: string, make: () => Permissions): Permissions {
    const kept = this.#kept.get(key)
    if (kept !== undefined) return kept
    const made = make()
    if (this.#kept.size < maxKept) this.#kept.set(key, made)
    return made
  }
}

function compileTemplate(source: string): Template {
  const parts = parseRuleFilter(source)
  // The schema, a token's check and a webhook's check see to it.
  if (parts === undefined) throw new TypeError(`${JSON.stringify(source)} is no filter of a rule`)
  return { source, parts }
}

function dependsOnNames({ publish, subscribe }: CompiledRule): boolean {
  return [...publish, ...subscribe].some(({ parts }) => parts.some(part => 'placeholder' in part))
}

/** What anonymous may do, everybody may: whoever is known could as well not say who they are. */
function isFor(to: AccessRule['to'], { user, roles, claims }: Identity): boolean {
  if (to === 'anonymous') return true
  if (to === 'authenticated') return user !== undefined
  if (to.user !== undefined) return user !== undefined && [to.user].flat().includes(user)
  if (to.role !== undefined) return [to.role].flat().some(role => roles.includes(role))
  return Object.entries(to.claim ?? {}).every(([name, value]) => {
    const claimed = Object.hasOwn(claims, name) ? claims[name] : undefined
    return Array.isArray(claimed) ? claimed.includes(value) : claimed === value
  })
}

interface Names {
  readonly open?: boolean
  readonly identity?: Identity
  readonly clientId?: ClientId
}

function permissions(
  publish: readonly Template[],
  subscribe: readonly Template[] | undefined,
  bounds: TopicBounds,
  names: Names = {},
): Permissions {
  const dropped = new Set<string>()
  const fillAll = (templates: readonly Template[]): string[] =>
    templates.flatMap(template => {
      const filter = fill(template, names)
      if (filter === undefined) dropped.add(template.source)
      return filter ?? []
    })
  const publishFilters = fillAll(publish)
  const subscribeFilters = subscribe === undefined ? publishFilters : fillAll(subscribe)
  const mayPublish = topicPredicate(publishFilters)
  const mayRead = subscribe === undefined ? mayPublish : topicPredicate(subscribeFilters)
  const open = names.open === true
  return {
    mayPublish: topic => isTopicName(topic, bounds) && (open || mayPublish(topic)),
    maySubscribe: filter =>
      isTopicFilter(filter, bounds) &&
      (open || (!isShared(filter) && subscribeFilters.some(rule => filterCovers(rule, filter)))),
    mayRead: topic => open || mayRead(topic),
    dropped: [...dropped],
  }
}

/** The built-in broker has no shared subscriptions, and takes the prefix for a topic. */
function isShared(filter: string): boolean {
  return filter.startsWith('$share/')
}

/**
 * The filter with the names in their places; `undefined` where a name would reach further than its place: into other
 * levels, or as the first level into topics that begin with `$`.
 */
function fill({ parts }: Template, { identity, clientId }: Names): string | undefined {
  let filter = ''
  for (const part of parts) {
    if ('text' in part) {
      filter += part.text
      continue
    }
    const name = part.placeholder === 'user' ? identity?.user : clientId
    if (name === undefined || name === '' || /[+#/\0]/.test(name)) return undefined
    if (filter === '' && name.startsWith('$')) return undefined
    filter += name
  }
  return topicFilterProblem(filter) === undefined ? filter : undefined
}
