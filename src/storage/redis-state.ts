import { randomBytes } from 'node:crypto'
import { type Redis, Script } from './redis.js'
import type { SharedRedis } from './shared-redis.js'
import {
  type SharedState,
  type StateBounds,
  type StateChange,
  type StateCollection,
  StateFullError,
  type StateRecord,
  sizeOf,
  type Usage,
  type UsageReport,
} from './shared-state.js'

/*
 * The keys of a collection, after the prefix and `state:<name>:`; they expire when nothing has changed for `maxAge`.
 *
 *   entries   a hash by key: version, owner, time in microseconds, bytes and value
 *   times     a sorted set of the keys by time
 *   owned     a sorted set, by name: <owner> 0 <time> 0 <key>
 *   numbers   a sorted set of the owners by their number of entries
 *   bytes     the same by their bytes
 *   total     the bytes of all
 *
 * The reports of usage are the stream `state:usage`, whose ids have the time.
 */

const keyNames = ['entries', 'times', 'owned', 'numbers', 'bytes', 'total']

/** Expired entries that one change deletes, and entries that it evicts at most. */
const [maxExpired, maxEvicted] = [16, 1000]

const clock = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
`

/** Keys: entries. Arguments: key, maximum age in microseconds. @returns nothing, or version, age in milliseconds, value */
const getScript = new Script(`${clock}
local packed = redis.call('HGET', KEYS[1], ARGV[1])
if not packed then return {} end
local version, _, changed, _, value = unpack(cmsgpack.unpack(packed))
local age = math.max(0, now - changed)
if age >= tonumber(ARGV[2]) then return {} end
return {version, string.format('%.0f', age / 1000), value}
`)

/**
 * Keys: as `keyNames`. Arguments: key, expected version, new version, owner, value, bytes, `d` to delete; maximum age in microseconds, the
 * bounds, and `refuse` or `evict`. @returns `ok`, `changed`, `full`
 */
const setScript = new Script(`${clock}
local entries, times, owned, numbers, sizes, total = unpack(KEYS)
local key, expected, version, owner, value, bytes = unpack(ARGV, 1, 6)
local maxAge, maxEntries, maxBytes, maxOwnEntries, maxOwnBytes = unpack(ARGV, 8, 12)
bytes, maxAge = tonumber(bytes), tonumber(maxAge)
maxEntries, maxBytes = tonumber(maxEntries), tonumber(maxBytes)
maxOwnEntries, maxOwnBytes = tonumber(maxOwnEntries), tonumber(maxOwnBytes)

local function name(owner, changed, key)
  return owner .. '\\0' .. string.format('%016.0f', changed) .. '\\0' .. key
end
local function number(text)
  return tonumber(text or '0')
end
local function drop(key)
  redis.call('ZREM', times, key)
  local packed = redis.call('HGET', entries, key)
  if not packed then return end
  local _, owner, changed, bytes = unpack(cmsgpack.unpack(packed))
  redis.call('HDEL', entries, key)
  redis.call('ZREM', owned, name(owner, changed, key))
  redis.call('INCRBY', total, -bytes)
  if number(redis.call('ZINCRBY', numbers, -1, owner)) > 0 then
    redis.call('ZINCRBY', sizes, -bytes, owner)
  else
    redis.call('ZREM', numbers, owner)
    redis.call('ZREM', sizes, owner)
  end
end
local function oldestOf(owner)
  local found = redis.call('ZRANGEBYLEX', owned, '[' .. owner .. '\\0', '(' .. owner .. '\\1', 'LIMIT', 0, 1)[1]
  return found and string.sub(found, #owner + 19)
end
local function isOver(entries, bytes)
  return redis.call('ZCARD', times) + entries > maxEntries or number(redis.call('GET', total)) + bytes > maxBytes
end

-- Redis may have evicted some of the keys.
local count = redis.call('HLEN', entries)
if count ~= redis.call('ZCARD', times) or count ~= redis.call('ZCARD', owned) then redis.call('DEL', unpack(KEYS)) end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', times, '-inf', string.format('%.0f', now - maxAge), 'LIMIT', 0, ${maxExpired})) do
  drop(old)
end
local found = ''
local packed = redis.call('HGET', entries, key)
if packed then
  local known = cmsgpack.unpack(packed)
  if now - known[3] < maxAge then found = known[1] end
end
if found ~= expected then return 'changed' end
if ARGV[7] ~= 'd' and bytes > math.min(maxBytes, maxOwnBytes) then return 'full' end
drop(key)
if ARGV[7] == 'd' then return 'ok' end
for _ = 1, ${maxEvicted} do
  local isWithin = number(redis.call('ZSCORE', numbers, owner)) < maxOwnEntries
    and number(redis.call('ZSCORE', sizes, owner)) + bytes <= maxOwnBytes
  local oldest = not isWithin and oldestOf(owner)
  if not oldest then break end
  drop(oldest)
end
if ARGV[13] == 'refuse' and found == '' and isOver(1, bytes) then return 'full' end
redis.call('HSET', entries, key, cmsgpack.pack({version, owner, now, bytes, value}))
redis.call('ZADD', times, string.format('%.0f', now), key)
redis.call('ZADD', owned, 0, name(owner, now, key))
redis.call('ZINCRBY', numbers, 1, owner)
redis.call('ZINCRBY', sizes, bytes, owner)
redis.call('INCRBY', total, bytes)
for _ = 1, ${maxEvicted} do
  if not isOver(0, 0) then break end
  local ranks = redis.call('ZCARD', times) > maxEntries and numbers or sizes
  for _, largest in ipairs(redis.call('ZREVRANGE', ranks, 0, 1)) do
    local oldest = oldestOf(largest)
    if oldest and oldest ~= key then
      drop(oldest)
      break
    end
  end
end
for _, each in ipairs(KEYS) do redis.call('PEXPIRE', each, string.format('%.0f', maxAge / 1000)) end
return 'ok'
`)

/** How long reports are kept, in milliseconds; their number, and how many one call returns. */
const [maxReportAge, maxReports, maxReturned] = [10_000, 1000, 100]
/** Bytes of one report, about. */
const maxReportBytes = 32 * 1024

/**
 * Keys: the stream. Arguments: the gateway's position and name, and its reports. @returns the new position, and age and report of each entry of
 * others
 */
const exchangeScript = new Script(`${clock}
now = math.floor(now / 1000)
local position = ARGV[1]
local function isLater(id)
  return tonumber(string.match(id, '^%d+')) > now
end
-- After a failover, or when the clock of its machine is set back, Redis has an earlier time. Reports of later ones would be returned until then.
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local isOutdated = newest and isLater(newest[1])
if isOutdated then redis.call('DEL', KEYS[1]) end
if isOutdated or isLater(position) then position = '0-0' end
local found = redis.call('XRANGE', KEYS[1], '(' .. position, '+', 'COUNT', ${maxReturned})
for index = 3, #ARGV do redis.call('XADD', KEYS[1], 'MAXLEN', '~', ${maxReports}, '*', 'g', ARGV[2], 'r', ARGV[index]) end
if #ARGV > 2 then
  redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', now - ${maxReportAge}))
  redis.call('PEXPIRE', KEYS[1], ${maxReportAge})
end
local reply = {position}
for _, entry in ipairs(found) do
  reply[1] = entry[1]
  local age = math.max(0, now - tonumber(string.match(entry[1], '^%d+')))
  if entry[2][2] ~= ARGV[2] and age < ${maxReportAge} then
    reply[#reply + 1] = string.format('%.0f', age)
    reply[#reply + 1] = entry[2][4]
  end
end
return reply
`)

/** The state that several gateways share in Redis. */
export class RedisState implements SharedState {
  readonly #redis: Redis
  readonly #prefix: string
  /** Names this gateway's reports. */
  readonly #name = randomBytes(9).toString('base64url')
  #position = '0-0'

  constructor({ redis, config }: Pick<SharedRedis, 'redis' | 'config'>) {
    this.#redis = redis
    this.#prefix = `${config.prefix}state:`
  }

  collection(name: string, bounds: StateBounds): StateCollection {
    return new RedisCollection(this.#redis, `${this.#prefix}${name}:`, bounds)
  }

  async exchange(usage: readonly Usage[]): Promise<readonly UsageReport[]> {
    const args = [this.#position, this.#name, ...encodeReports(usage)]
    const reply = (await exchangeScript.run(this.#redis, [`${this.#prefix}usage`], args)) as Buffer[]
    const [position, ...rest] = reply.map(String)
    this.#position = position ?? '0-0'
    const reports: UsageReport[] = []
    for (let at = 0; at < rest.length; at += 2) {
      reports.push({ age: Number(rest[at]), usage: decodeReport(rest[at + 1] ?? '[]') })
    }
    return reports
  }
}

/** A JSON array of limit, key and amount in turn. */
function encodeReports(usage: readonly Usage[]): string[] {
  const reports: string[] = []
  let [items, bytes]: [string[], number] = [[], 0]
  for (const { limit, key, amount } of usage) {
    const item = `${JSON.stringify(limit)},${JSON.stringify(key)},${amount}`
    if (bytes + item.length > maxReportBytes) {
      reports.push(`[${items}]`)
      ;[items, bytes] = [[], 0]
    }
    items.push(item)
    bytes += item.length
  }
  return items.length > 0 ? [...reports, `[${items}]`] : reports
}

function decodeReport(json: string): Usage[] {
  const items = JSON.parse(json) as (string | number)[]
  const usage: Usage[] = []
  for (let at = 0; at < items.length; at += 3) {
    usage.push({ limit: String(items[at]), key: String(items[at + 1]), amount: Number(items[at + 2]) })
  }
  return usage
}

class RedisCollection implements StateCollection {
  readonly #redis: Redis
  readonly #keys: readonly string[]
  readonly #maxAge: number
  readonly #bounds: readonly (string | number)[]

  constructor(redis: Redis, prefix: string, bounds: StateBounds) {
    this.#redis = redis
    this.#keys = keyNames.map(name => prefix + name)
    const { maxAge, maxEntries, maxBytes, maxEntriesPerOwner, maxBytesPerOwner, whenFull } = bounds
    this.#maxAge = maxAge * 1000
    this.#bounds = [this.#maxAge, maxEntries, maxBytes, maxEntriesPerOwner, maxBytesPerOwner, whenFull]
  }

  async get(key: string): Promise<StateRecord> {
    const reply = await getScript.run(this.#redis, this.#keys.slice(0, 1), [key, this.#maxAge])
    const [version = '', age = '0', value] = (reply as Buffer[]).map(String)
    return { value, version, age: Number(age) }
  }

  async set(key: string, version: string, change: StateChange | undefined): Promise<string | undefined> {
    // Random, so that no failover of Redis gives a version twice.
    const next = change ? randomBytes(9).toString('base64url') : ''
    const { owner = '', value = '' } = change ?? {}
    const entry = [key, version, next, owner, value, change ? sizeOf(key, change) : 0, change ? '' : 'd']
    const result = String(await setScript.run(this.#redis, this.#keys, [...entry, ...this.#bounds]))
    if (result === 'full') throw new StateFullError()
    return result === 'ok' ? next : undefined
  }
}
