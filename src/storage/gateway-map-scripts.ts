import { Script } from './redis.js'

/*
 * What `GatewayMaps` does in Redis, each atomically. Its keys begin with the prefix and the name:
 *
 *   <name>            a stream of changes; the id of an entry is <position>-0, and its first field says what it is: `of`, with the gateway, and key
 *                     and value of each change; `left`, with the gateway; `mark`
 *   <name>:head       the last position
 *   <name>:gateways   a set of the registered gateways
 *   <name>:of:…       the map of a gateway, a hash; its field # is the number of its last batch
 *   <name>:lease:…    is there as long as the lease of a gateway
 */

/** Batches in the stream; a gateway that has missed more reads the hashes. */
const maxBatches = 1000
/** How long the map of a gateway remains if no other one removes it, in milliseconds. */
const keep = 600_000

/** Appends to the stream. Positions begin with the time, so that none occurs again after Redis has lost them. */
const append = `
local function append(first, ...)
  redis.call('SET', KEYS[1] .. ':head', first, 'NX')
  local position = string.format('%.0f', redis.call('INCR', KEYS[1] .. ':head'))
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', '${maxBatches}', position .. '-0', ...)
  return position
end
`

/**
 * Changes a map, renews the lease of its gateway, and removes gateways whose lease has ended. A batch that Redis has already is not written again.
 *
 * Keys: the name. Arguments: gateway, number of the batch, duration of the lease, first position, a gateway whose lease is renewed, too, or nothing; how
 * many other gateways to compare, and these; and key and value of each change, empty for a deletion. @returns `ok`; `late` if the lease had ended, and others were not compared; `lost` if Redis does
 * not have the batches before
 */
export const writeScript = new Script(`${append}
local base, id, number, first, others = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[4], tonumber(ARGV[6])
local map, lease = base .. ':of:' .. id, base .. ':lease:' .. id
local last = tonumber(redis.call('HGET', map, '#') or '0')
if number == 1 and last == 0 then
  redis.call('SADD', base .. ':gateways', id)
elseif (number ~= last and number ~= last + 1) or redis.call('SISMEMBER', base .. ':gateways', id) == 0 then
  return 'lost'
end
local isLate = redis.call('EXISTS', lease) == 0
redis.call('SET', lease, '1', 'PX', ARGV[3])
if ARGV[5] ~= '' then redis.call('SET', base .. ':lease:' .. ARGV[5], '1', 'PX', ARGV[3]) end
if number == last + 1 then
  for at = 7 + others, #ARGV, 2 do
    if ARGV[at + 1] == '' then redis.call('HDEL', map, ARGV[at]) else redis.call('HSET', map, ARGV[at], ARGV[at + 1]) end
  end
  redis.call('HSET', map, '#', ARGV[2])
  append(first, 'of', id, unpack(ARGV, 7 + others))
end
redis.call('PEXPIRE', map, '${keep}')
if isLate then return 'late' end
for at = 7, 6 + others do
  if redis.call('EXISTS', base .. ':lease:' .. ARGV[at]) == 0 then
    redis.call('SREM', base .. ':gateways', ARGV[at])
    redis.call('UNLINK', base .. ':of:' .. ARGV[at])
    append(first, 'left', ARGV[at])
  end
end
return 'ok'
`)

/** Shortens the lease of a gateway that ends. Keys: the name. Arguments: gateway, duration. */
export const leaveScript = new Script(`
redis.call('PEXPIRE', KEYS[1] .. ':lease:' .. ARGV[1], ARGV[2])
return 'ok'
`)

/** Sets a mark. Keys: the name, the lease of who leads. Arguments: token, mark, first position. @returns its position, or 0 without the lease */
export const markScript = new Script(`${append}
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return '0' end
return append(ARGV[3], 'mark', ARGV[2])
`)
