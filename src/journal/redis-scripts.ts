import { Script } from '../storage/redis.js'

/*
 * What the journal does in Redis, each atomically. Its keys, after the prefix:
 *
 *   journal     a hash: format, epoch, head, layout, rules, shares, evicted:<share>, the last batch and the head before it, client id, subscriptions
 *   events      a stream; the id of an entry is <sequence>-0
 *   retained    a hash by topic
 *   lease       who may append, while one gateway reads the broker
 *   deliveries  a hash by packet identifier: messages of QoS 1 that may arrive again
 *
 * Numbers are compared as texts, which are whole numbers of Lua's doubles.
 */

export type KeyName = 'journal' | 'events' | 'retained' | 'lease' | 'deliveries' | 'probe'

/** The format of the keys; others are refused. */
export const journalFormat = '1'

/** Uses each command once, on a key of its own, so that a missing permission is found before anything is written. */
export const probeScript = new Script(`
local key = KEYS[1]
redis.call('TIME')
if redis.call('EXISTS', key) == 1 then redis.call('DEL', key) end
redis.call('HSET', key, 'a', '1')
redis.call('HGET', key, 'a')
redis.call('HMGET', key, 'a')
redis.call('HGETALL', key)
redis.call('HSCAN', key, '0')
redis.call('HLEN', key)
redis.call('HDEL', key, 'a')
redis.call('XADD', key, '1-0', 'e', '')
redis.call('XRANGE', key, '-', '+')
redis.call('XREVRANGE', key, '+', '-')
redis.call('XREAD', 'STREAMS', key, '0')
redis.call('XDEL', key, '1-0')
redis.call('XTRIM', key, 'MAXLEN', '1')
redis.call('DEL', key)
redis.call('ZADD', key, '1', 'a')
redis.call('ZINCRBY', key, '1', 'a')
redis.call('ZSCORE', key, 'a')
redis.call('ZCARD', key)
redis.call('ZRANGEBYSCORE', key, '0', '1')
redis.call('ZRANGEBYLEX', key, '-', '+')
redis.call('ZREVRANGE', key, '0', '1')
redis.call('ZREM', key, 'a')
redis.call('INCRBY', key, '1')
redis.call('INCR', key)
redis.call('DEL', key)
redis.call('SADD', key, 'a')
redis.call('SISMEMBER', key, 'a')
redis.call('SMEMBERS', key)
redis.call('SREM', key, 'a')
redis.call('UNLINK', key)
redis.call('SET', key, '1', 'PX', '1000', 'NX')
redis.call('PEXPIRE', key, '1000')
redis.call('GET', key)
redis.call('TYPE', key)
redis.call('DEL', key)
return 'OK'
`)

/**
 * Creates the journal, or joins it. Where Redis has lost events that a gateway has, the epoch ends, and sequences go on after all that were given.
 *
 * Keys: journal, events, retained. Arguments: a new epoch, the format, the gateway's epoch and head, whether its last event is another one, and
 * the record of a gap marker. @returns `ok`, `foreign`
 */
export const joinScript = new Script(`
local journal, events, retained = KEYS[1], KEYS[2], KEYS[3]
local fresh, format, known, seen, diverged, marker = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local kind = redis.call('TYPE', journal)['ok']
if kind ~= 'none' and kind ~= 'hash' then return {'foreign', 'journal'} end
local found = redis.call('HGET', journal, 'format')
if found and found ~= format then return {'foreign', 'journal'} end
local mark = false
if not found then
  if kind == 'hash' then return {'foreign', 'journal'} end
  if redis.call('EXISTS', events) == 1 then return {'foreign', 'events'} end
  if redis.call('EXISTS', retained) == 1 then return {'foreign', 'retained'} end
  redis.call('HSET', journal, 'format', format, 'epoch', fresh, 'head', '0', 'layout', '1')
  mark = known ~= ''
end
-- An error at a replica, to which nothing can be appended.
redis.call('HDEL', journal, 'none')
local epoch = redis.call('HGET', journal, 'epoch')
local head = tonumber(redis.call('HGET', journal, 'head'))
if head < seen or (known ~= '' and known ~= epoch) then mark = true end
if epoch == known and (mark or diverged == '1') then
  epoch = fresh
  mark = true
end
if mark then
  -- Not the next one, so that no gateway takes it for a continuation.
  local at = string.format('%.0f', math.max(head, seen) + 2)
  redis.call('XADD', events, at .. '-0', 'e', marker .. epoch)
  redis.call('HSET', journal, 'epoch', epoch, 'head', at, 'batch', '', 'base', '')
end
return {'ok'}
`)

/**
 * Stores other rules. Keys: journal. Arguments: the layout that they replace, the rules, the shares, in which `"since":-1` means from now on.
 * @returns 1, or 0 where another gateway was faster
 */
export const rulesScript = new Script(`
local journal = KEYS[1]
if redis.call('HGET', journal, 'layout') ~= ARGV[1] then return 0 end
local head = redis.call('HGET', journal, 'head')
local shares = string.gsub(ARGV[3], '"since":%-1', '"since":' .. head)
redis.call('HSET', journal, 'rules', ARGV[2], 'shares', shares, 'layout', string.format('%.0f', tonumber(ARGV[1]) + 1))
return 1
`)

/** As in all scripts that write: who may, and whether the gateway knows all that is there. */
const guard = `
local now = redis.call('HMGET', KEYS[1], 'epoch', 'layout', 'head', 'batch', 'base')
if now[1] ~= ARGV[2] or now[2] ~= ARGV[3] then return {'stale'} end
if (redis.call('GET', KEYS[4]) or '') ~= ARGV[1] then return {'fenced'} end
`

/**
 * Appends a batch. Keys: journal, events, retained, lease, deliveries. Arguments: token, epoch, layout, head, batch; how many packet
 * identifiers are free again, and these; and for each event its record, `k` to keep or `r` to remove its topic's retained message, its topic,
 * its packet identifier or nothing, and the digest of its delivery. @returns `ok`; `moved` with the last batch and the head before it;
 * `stale`; `fenced`
 */
export const appendScript = new Script(`${guard}
local events, retained, deliveries = KEYS[2], KEYS[3], KEYS[5]
if now[3] ~= ARGV[4] then return {'moved', now[4] or '', now[5] or ''} end
local at = 7
for _ = 1, tonumber(ARGV[6]) do
  redis.call('HDEL', deliveries, ARGV[at])
  at = at + 1
end
local sequence = tonumber(ARGV[4])
local id = ARGV[4]
while at <= #ARGV do
  sequence = sequence + 1
  id = string.format('%.0f', sequence)
  local record, change, topic = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  redis.call('XADD', events, id .. '-0', 'e', record)
  if change == 'k' then redis.call('HSET', retained, topic, id .. ' ' .. record) end
  if change == 'r' then redis.call('HDEL', retained, topic) end
  if ARGV[at + 3] ~= '' then redis.call('HSET', deliveries, ARGV[at + 3], ARGV[at + 4]) end
  at = at + 5
end
redis.call('HSET', KEYS[1], 'head', id, 'batch', ARGV[5], 'base', ARGV[4])
return {'ok'}
`)

/**
 * Deletes evicted events and outdated retained messages. Keys: as for `appendScript`. Arguments: token, epoch, layout; how many shares, and
 * number and newest evicted sequence of each; how many events, and their sequences; and topic and sequence of each retained message.
 * @returns `ok`, `stale`, `fenced`
 */
export const trimScript = new Script(`${guard}
local at = 5
for _ = 1, tonumber(ARGV[4]) do
  local field, evicted = 'evicted:' .. ARGV[at], ARGV[at + 1]
  if tonumber(redis.call('HGET', KEYS[1], field) or '0') < tonumber(evicted) then
    redis.call('HSET', KEYS[1], field, evicted)
  end
  at = at + 2
end
local count = tonumber(ARGV[at])
for index = at + 1, at + count do redis.call('XDEL', KEYS[2], ARGV[index] .. '-0') end
at = at + count + 1
while at <= #ARGV do
  local prefix = ARGV[at + 1] .. ' '
  local value = redis.call('HGET', KEYS[3], ARGV[at])
  if value and string.sub(value, 1, #prefix) == prefix then redis.call('HDEL', KEYS[3], ARGV[at]) end
  at = at + 2
end
return {'ok'}
`)

/**
 * Sets a field, unless there is no journal. Keys: journal. Arguments: field, value, `1` to leave an earlier value. @returns the field's value, or
 * nothing without a journal
 */
export const fieldScript = new Script(`
if not redis.call('HGET', KEYS[1], 'format') then return false end
if ARGV[3] ~= '1' or not redis.call('HGET', KEYS[1], ARGV[1]) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return redis.call('HGET', KEYS[1], ARGV[1])
`)
