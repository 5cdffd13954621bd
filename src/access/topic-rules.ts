import type { Identity } from '../base/identity.js'
import type { AccessConfig, AccessRule } from '../config/access.js'
import { filterCovers, topicPredicate } from '../topics/match.js'
import { isResponseTopic, mayMatchResponses } from '../topics/response-topic.js'
import { parseRuleFilter, type RulePart } from '../topics/rule-filter.js'
import { isTopicFilter, isTopicName, type TopicBounds, topicFilterProblem } from '../topics/topic-syntax.js'

/** The permissions of one connection. Checked for every message and every subscription. */
export interface Permissions {
  /** Whether `topic` is a valid topic name and may be published to; for retained messages and wills, too. */
  mayPublish(topic: string): boolean
  /** Whether `filter` is a valid topic filter, all of whose topics may be read. */
  maySubscribe(filter: string): boolean
  /** Whether `topic` may be read: for messages that were stored under other rules. */
  mayRead(topic: string): boolean
  /** Filters without effect, because the name for their placeholder has `+`, `#` or `/`, or is unknown. */
  readonly dropped: readonly string[]
}

/** `undefined` over HTTP, and before the CONNECT. */
export type ClientId = string | undefined

interface Template {
  readonly source: string
  readonly parts: readonly RulePart[]
}

interface CompiledRule {
  readonly to: AccessRule['to']
  readonly publish: readonly Template[]
  readonly subscribe: readonly Template[]
  readonly isAdmin: boolean
}

/** Cached permissions of sets of rules without placeholders; those with placeholders are compiled for each connection. */
const maxCached = 256

/**
 * Evaluates the topic rules of the configuration:
 * - without `access:`, everything is allowed
 * - with `access:` but without rules, an admitted client may do everything, except on topics that begin with `$`; a client whose token
 *   or webhook response has rules may do only what these allow
 * - with rules, a client may do what the rules allow, and the rules of its token or webhook response; a topic that begins with `$` must
 *   be named by a filter that begins with `$`
 */
export class TopicRules {
  #rules: readonly CompiledRule[] | undefined
  readonly #open: boolean
  readonly #bounds: TopicBounds
  readonly #cache = new Map<string, Permissions>()
  #version = 0

  constructor(access: Pick<AccessConfig, 'rules'> | undefined, bounds: TopicBounds) {
    this.#open = access === undefined
    this.#bounds = bounds
    this.configure(access)
  }

  /** Changes when the rules do: permissions of before are outdated then. */
  get version(): number {
    return this.#version
  }

  /** Applies other rules. Whether there is access control at all stays as it was. */
  configure(access: Pick<AccessConfig, 'rules'> | undefined): void {
    this.#version += 1
    this.#cache.clear()
    this.#rules = access?.rules?.map(({ to, publish, subscribe, admin }) => ({
      to,
      publish: publish.map(compileTemplate),
      subscribe: subscribe.map(compileTemplate),
      isAdmin: admin === true,
    }))
  }

  /** Returns the permissions of a connection; cached unless a rule has a placeholder. */
  for(identity: Identity, clientId?: ClientId): Permissions {
    if (this.#open) return this.#cached('open', () => permissions([], [], this.#bounds, { open: true }))
    const own = identity.rules
    if (this.#rules === undefined && own === undefined) {
      return this.#cached('everything', () =>
        permissions([{ source: '#', parts: [{ text: '#' }] }], undefined, this.#bounds),
      )
    }
    const applying = (this.#rules ?? []).filter(({ to }) => appliesTo(to, identity))
    const make = (): Permissions => {
      const publish = [...applying.flatMap(rule => rule.publish), ...(own?.publish ?? []).map(compileTemplate)]
      const subscribe = [...applying.flatMap(rule => rule.subscribe), ...(own?.subscribe ?? []).map(compileTemplate)]
      return permissions(publish, subscribe, this.#bounds, { identity, clientId })
    }
    if (own !== undefined || applying.some(hasPlaceholder)) return make()
    return this.#cached(applying.map(rule => this.#rules?.indexOf(rule)).join(), make)
  }

  /** Whether a rule of the configuration gives `admin`. */
  isAdmin(identity: Identity): boolean {
    return (this.#rules ?? []).some(({ to, isAdmin }) => isAdmin && appliesTo(to, identity))
  }

  #cached(key: string, make: () => Permissions): Permissions {
    const cached = this.#cache.get(key)
    if (cached !== undefined) return cached
    const made = make()
    if (this.#cache.size < maxCached) this.#cache.set(key, made)
    return made
  }
}

function compileTemplate(source: string): Template {
  const parts = parseRuleFilter(source)
  if (parts === undefined) throw new TypeError(`${JSON.stringify(source)} is no filter of a rule`)
  return { source, parts }
}

function hasPlaceholder({ publish, subscribe }: CompiledRule): boolean {
  return [...publish, ...subscribe].some(({ parts }) => parts.some(part => 'placeholder' in part))
}

/** The rules for `anonymous` apply to everybody, as any client could send no credential. */
function appliesTo(to: AccessRule['to'], { user, roles, claims }: Identity): boolean {
  if (to === 'anonymous') return true
  if (to === 'authenticated') return user !== undefined
  if (to.user !== undefined) return user !== undefined && [to.user].flat().includes(user)
  if (to.role !== undefined) return [to.role].flat().some(role => roles.includes(role))
  return Object.entries(to.claim ?? {}).every(([name, value]) => {
    const claimed = Object.hasOwn(claims, name) ? claims[name] : undefined
    return Array.isArray(claimed) ? claimed.includes(value) : claimed === value
  })
}

interface FillOptions {
  readonly open?: boolean
  readonly identity?: Identity
  readonly clientId?: ClientId
}

function permissions(
  publish: readonly Template[],
  subscribe: readonly Template[] | undefined,
  bounds: TopicBounds,
  options: FillOptions = {},
): Permissions {
  const dropped = new Set<string>()
  const fillAll = (templates: readonly Template[]): string[] =>
    templates.flatMap(template => {
      const filter = fill(template, options)
      if (filter === undefined) dropped.add(template.source)
      return filter ?? []
    })
  const publishFilters = fillAll(publish)
  const subscribeFilters = subscribe === undefined ? publishFilters : fillAll(subscribe)
  const mayPublish = topicPredicate(publishFilters)
  const mayRead = subscribe === undefined ? mayPublish : topicPredicate(subscribeFilters)
  const open = options.open === true
  return {
    mayPublish: topic => isTopicName(topic, bounds) && (open || isResponseTopic(topic) || mayPublish(topic)),
    maySubscribe: filter =>
      isTopicFilter(filter, bounds) &&
      !mayMatchResponses(filter) &&
      (open || (!isShared(filter) && subscribeFilters.some(rule => filterCovers(rule, filter)))),
    mayRead: topic => !isResponseTopic(topic) && (open || mayRead(topic)),
    dropped: [...dropped],
  }
}

/** The embedded broker asks about the filter of a shared subscription; nothing else has shared subscriptions. */
function isShared(filter: string): boolean {
  return filter.startsWith('$share/')
}

/**
 * Fills the placeholders of a filter; `undefined` if a name would change its levels, or make it match topics that begin with `$`.
 */
function fill({ parts }: Template, { identity, clientId }: FillOptions): string | undefined {
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
