import { randomBytes } from 'node:crypto'
import type { Logger } from '../base/log.js'
import type { Coordinator } from './coordinator.js'
import { connectRedis, type Redis, redisOptions, Script } from './redis.js'
import { nameOf, type SharedRedis } from './shared-redis.js'

/*
 * Calls of gateways to their coordinator. The keys, after the prefix:
 *
 *   <name>:calls             a stream of the calls that are not answered: gateway, number, body
 *   <name>:answers:<gateway> a stream of answers to one gateway: number, and the body after a `+`; `-` for a failure
 *   <name>:news              a stream of what the coordinator tells all gateways: term, number, body
 */

/** Calls of one gateway that are in Redis at the same time; and all that have no answer, in number and characters. */
const [maxSent, maxCalls, maxCallsLength] = [100, 10_000, 16 * 1024 ** 2]
/** Entries of one read, and how long a read waits for one, with its time limit, in milliseconds. */
const [readSize, blockTime, readTimeout] = [100, 500, 4000]
/** Entries of `news`, and their characters. A gateway that misses some reads everything again. */
const [maxNews, maxNewsLength] = [1000, 4 * 1024 ** 2]
/** Time until news are told again after a failure, in milliseconds. */
const retryDelay = 200
/** Time until answers to a gateway that has ended are deleted, in milliseconds. */
const answersAge = 30_000

/**
 * Answers calls of a gateway. Keys: lease, calls, answers. Arguments: token, time until the answers are deleted, and for each call its id, its number,
 * and the answer. @returns `ok`, `fenced`
 */
const answerScript = new Script(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'fenced' end
for at = 3, #ARGV, 3 do
  redis.call('XDEL', KEYS[2], ARGV[at])
  redis.call('XADD', KEYS[3], '*', 'n', ARGV[at + 1], 'b', ARGV[at + 2])
end
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return 'ok'
`)

/** The calls cannot be answered now. */
export class CallFailed extends Error {
  override readonly name = 'CallFailed'
}

/** Tells all gateways what has changed. */
export interface News {
  readonly body: string
  /** Whether it follows the last one that this gateway knows. */
  readonly isNext: boolean
}

export interface CoordinatorCallsOptions {
  readonly shared: SharedRedis
  readonly coordinator: Pick<Coordinator, 'key' | 'token'>
  /** Part of the keys. */
  readonly name: string
  /** Called with the news of another gateway. It must not throw. */
  readonly onNews: (news: News) => void
  /** Called after a lost connection, when news may have been missed. It must not throw. */
  readonly onReconnected: () => void
  /** Time limit of a call, in milliseconds. Default: 8000, twice as long as the election of another coordinator. */
  readonly timeout?: number | undefined
  readonly log: Logger
}

/** How the coordinator serves calls, while it is the coordinator. */
export interface CallService {
  readonly token: string
  /** @returns the answer; rejects if the call cannot be answered now */
  readonly handle: (body: string) => Promise<string>
}

interface Call {
  readonly body: string
  readonly resolve: (answer: string) => void
  readonly reject: (error: unknown) => void
  readonly timer: NodeJS.Timeout
  /** Its id in the stream. */
  id?: string
}

interface Told {
  readonly token: string
  readonly body: string
  readonly fields: readonly string[]
}

/** @throws {StartError} if Redis cannot be reached */
export async function openCoordinatorCalls(options: CoordinatorCallsOptions): Promise<CoordinatorCalls> {
  const { config } = options.shared
  const reader = await connectRedis(await redisOptions(config), nameOf(config), options.log, readTimeout)
  return new CoordinatorCalls(options, reader)
}

/** Carries calls to the coordinator, and its news to all gateways. A call is answered by the next coordinator if the first one ends: it may be made twice. */
export class CoordinatorCalls {
  readonly #options: CoordinatorCallsOptions
  readonly #redis: Redis
  readonly #reader: Redis
  readonly #gateway = randomBytes(9).toString('base64url')
  readonly #keys: { readonly calls: string; readonly answers: string; readonly news: string }
  readonly #answersOf: (gateway: string) => string
  /** By number. */
  readonly #calls = new Map<number, Call>()
  /** Numbers of calls that are not in Redis yet. */
  readonly #waiting: number[] = []
  /** Characters of all calls without an answer. */
  #length = 0
  #sent = 0
  #last = 0
  #service: CallService | undefined
  #onServed: () => void = ignore
  #toTell: Told[] = []
  /** Entries of `news` of this coordinator. */
  #news: { readonly id: string; readonly length: number }[] = []
  #newsLength = 0
  #telling: Promise<void> | undefined
  #toldTerm = ''
  #toldNumber = 0
  #knownTerm = ''
  #knownNumber = 0
  #isClosed = false
  readonly #reading: Promise<void>

  constructor(options: CoordinatorCallsOptions, reader: Redis) {
    const { shared, name } = options
    this.#options = options
    this.#redis = shared.redis
    this.#reader = reader
    const key = (part: string): string => `${shared.config.prefix}${name}:${part}`
    this.#answersOf = gateway => key(`answers:${gateway}`)
    this.#keys = { calls: key('calls'), answers: this.#answersOf(this.#gateway), news: key('news') }
    this.#reading = this.#read()
  }

  /**
   * Calls the coordinator.
   *
   * @returns its answer
   * @throws {CallFailed} rejects if there is no answer in time, or too many calls wait; the call may have been made
   */
  call(body: string): Promise<string> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed || this.#redis.status !== 'ready') return reject(new CallFailed('Redis is not connected'))
      if (this.#calls.size >= maxCalls || this.#length + body.length > maxCallsLength) {
        return reject(new CallFailed('too many calls wait for the coordinator'))
      }
      const number = ++this.#last
      const late = (): void => this.#settle(number, new CallFailed('the coordinator does not answer'))
      this.#calls.set(number, { body, resolve, reject, timer: setTimeout(late, this.#options.timeout ?? 8000) })
      this.#waiting.push(number)
      this.#length += body.length
      this.#sendWaiting()
    })
  }

  /** Serves the calls of all gateways. @returns a promise that resolves when those that waited are answered, or it has stopped */
  serve(service: CallService): Promise<void> {
    this.stopServing()
    this.#service = service
    this.#toldTerm = randomBytes(9).toString('base64url')
    this.#toldNumber = 0
    this.#toTell = []
    this.#news = []
    this.#newsLength = 0
    return new Promise(resolve => {
      this.#onServed = resolve
    })
  }

  stopServing(): void {
    this.#service = undefined
    this.#onServed()
  }

  /** Tells all other gateways, in this order, while this one serves. */
  tell(body: string): void {
    if (!this.#service) return
    const fields = ['g', this.#gateway, 't', this.#toldTerm, 'n', String(this.#toldNumber++), 'b', body]
    this.#toTell.push({ token: this.#service.token, body, fields })
    this.#telling ??= this.#tellAll().finally(() => {
      this.#telling = undefined
    })
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.stopServing()
    for (const number of this.#calls.keys()) this.#settle(number, new CallFailed('the gateway ends'))
    this.#reader.disconnect()
    await this.#reading
    await this.#telling
  }

  #sendWaiting(): void {
    while (this.#sent < maxSent) {
      const number = this.#waiting.shift()
      if (number === undefined) return
      const call = this.#calls.get(number)
      if (!call) continue
      this.#sent++
      void this.#send(number, call)
    }
  }

  async #send(number: number, call: Call): Promise<void> {
    try {
      const fields = ['g', this.#gateway, 'n', number, 'b', call.body]
      call.id = String(await this.#redis.xadd(this.#keys.calls, '*', ...fields))
      // It may have ended meanwhile.
      if (!this.#calls.has(number)) this.#delete(call.id)
    } catch (error) {
      this.#settle(number, new CallFailed('Redis has not taken the call', { cause: error }))
    } finally {
      if (!this.#calls.has(number)) this.#release()
    }
  }

  #settle(number: number, outcome: string | CallFailed): void {
    const call = this.#calls.get(number)
    if (!call) return
    this.#calls.delete(number)
    this.#length -= call.body.length
    clearTimeout(call.timer)
    if (typeof outcome === 'string') call.resolve(outcome)
    else call.reject(outcome)
    const at = this.#waiting.indexOf(number)
    if (at >= 0) this.#waiting.splice(at, 1)
    else if (call.id !== undefined) {
      if (typeof outcome !== 'string') this.#delete(call.id)
      this.#release()
    }
  }

  /** A call is no more in Redis. */
  #release(): void {
    this.#sent--
    this.#sendWaiting()
  }

  #delete(id: string): void {
    this.#redis.xdel(this.#keys.calls, id).catch(ignore)
  }

  async #tellAll(): Promise<void> {
    while (this.#toTell.length > 0 && !this.#isClosed) {
      const [told] = this.#toTell
      if (!told) return
      if (told.token !== this.#service?.token) {
        this.#toTell = this.#toTell.filter(other => other.token === this.#service?.token)
        continue
      }
      try {
        await this.#addNews(told)
        // Others may have been discarded meanwhile.
        if (this.#toTell[0] === told) this.#toTell.shift()
      } catch {
        await new Promise(resolve => setTimeout(resolve, retryDelay))
      }
    }
  }

  /** Adds an entry, and deletes the oldest ones beyond the bounds: those of former coordinators with the first of this one. */
  async #addNews({ body, fields }: Told): Promise<void> {
    const { news } = this.#keys
    const [oldest] = this.#news
    const id = oldest
      ? await this.#redis.xadd(news, 'MINID', oldest.id, '*', ...fields)
      : await this.#redis.xadd(news, 'MAXLEN', 1, '*', ...fields)
    this.#news.push({ id: String(id), length: body.length })
    this.#newsLength += body.length
    while (this.#news.length > maxNews || (this.#newsLength > maxNewsLength && this.#news.length > 1)) {
      this.#newsLength -= this.#news.shift()?.length ?? 0
    }
  }

  async #read(): Promise<void> {
    const { calls, answers, news } = this.#keys
    let positions: { answers: string; news: string } | undefined
    this.#reader.on('close', () => {
      positions = undefined
    })
    while (!this.#isClosed) {
      try {
        if (this.#reader.status !== 'ready') throw new Error('not connected')
        if (!positions) {
          const [newest] = await this.#reader.xrevrange(news, '+', '-', 'COUNT', 1)
          positions = { answers: '0', news: newest?.[0] ?? '0' }
          this.#knownTerm = ''
          this.#options.onReconnected()
        }
        // A call is deleted when it is answered.
        const [keys, ids] = [
          [answers, news],
          [positions.answers, positions.news],
        ]
        const service = this.#service
        const isServing = service !== undefined && this.#options.coordinator.token === service.token
        if (isServing) {
          keys.push(calls)
          ids.push('0')
        }
        const reply =
          (await this.#reader.xread('COUNT', readSize, 'BLOCK', blockTime, 'STREAMS', ...keys, ...ids)) ?? []
        if (isServing && !reply.some(([key]) => key === calls)) this.#onServed()
        for (const [key, entries] of reply) {
          const last = entries.at(-1)?.[0]
          if (key === calls && service) await this.#handle(service, entries)
          if (key === answers) this.#takeAnswers(entries)
          if (key === news) this.#takeNews(entries)
          if (positions && last !== undefined && key === answers) positions.answers = last
          if (positions && last !== undefined && key === news) positions.news = last
        }
      } catch {
        if (this.#isClosed) return
        await new Promise(resolve => setTimeout(resolve, retryDelay))
      }
    }
  }

  #takeAnswers(entries: readonly Entry[]): void {
    for (const [, fields] of entries) {
      const { n, b = '' } = fieldsOf(fields)
      this.#settle(Number(n), b.startsWith('+') ? b.slice(1) : new CallFailed('the coordinator could not answer'))
    }
    this.#redis.xdel(this.#keys.answers, ...entries.map(([id]) => id)).catch(ignore)
  }

  #takeNews(entries: readonly Entry[]): void {
    for (const [, fields] of entries) {
      const { g, t = '', n, b = '' } = fieldsOf(fields)
      if (g === this.#gateway) continue
      const number = Number(n)
      const isNext = t === this.#knownTerm && number === this.#knownNumber + 1
      this.#knownTerm = t
      this.#knownNumber = number
      this.#options.onNews({ body: b, isNext })
    }
  }

  async #handle(service: CallService, entries: readonly Entry[]): Promise<void> {
    const { coordinator } = this.#options
    const answers = new Map<string, string[]>()
    await Promise.all(
      entries.map(async ([id, fields]) => {
        const { g = '', n = '', b = '' } = fieldsOf(fields)
        const answer = await service.handle(b).then(
          text => `+${text}`,
          () => '-',
        )
        const list = answers.get(g) ?? []
        answers.set(g, list)
        list.push(id, n, answer)
      }),
    )
    // The next coordinator answers what this one could not.
    if (coordinator.token !== service.token) return
    for (const [gateway, list] of answers) {
      const keys = [coordinator.key, this.#keys.calls, this.#answersOf(gateway)]
      const outcome = await answerScript.run(this.#redis, keys, [service.token, answersAge, ...list])
      if (String(outcome) !== 'ok') throw new Error('another gateway is the coordinator')
    }
  }
}

type Entry = readonly [id: string, fields: readonly string[]]

function fieldsOf(fields: readonly string[]): { readonly [name: string]: string | undefined } {
  const found: Record<string, string | undefined> = {}
  for (let at = 0; at < fields.length; at += 2) found[fields[at] ?? ''] = fields[at + 1]
  return found
}

function ignore(): void {}
