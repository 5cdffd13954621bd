import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { TimeSlicer } from '../../src/base/time-slicer.js'
import { GatewayMaps, type MapChange, type MapsFollower } from '../../src/storage/gateway-maps.js'
import type { Redis } from '../../src/storage/redis.js'
import { openSharedRedis, type SharedRedis } from '../../src/storage/shared-redis.js'
import { type RedisServer, startRedis } from '../helpers/redis.js'
import { describeWith } from '../helpers/requires.js'
import { eventually } from '../helpers/wait.js'

const log = createLog({ level: 'silent', format: 'json' })

/** Keeps all maps. */
class TestFollower implements MapsFollower {
  readonly own = new Map<string, string>()
  all = new Map<string, Map<string, string>>()
  /** What has happened, and how many entries each gateway had then. */
  readonly events: { what: string; sizes: Record<string, number> }[] = []

  entries(): Iterable<MapChange> {
    return this.own
  }

  onChange(gateway: string, [key, value]: MapChange): void {
    const map = this.all.get(gateway) ?? new Map<string, string>()
    this.all.set(gateway, map)
    if (value === undefined) map.delete(key)
    else map.set(key, value)
  }

  async onLeft(gateway: string): Promise<void> {
    this.#note(`left ${gateway}`)
    this.all.delete(gateway)
  }

  async onLoaded(maps: ReadonlyMap<string, ReadonlyMap<string, string>>): Promise<void> {
    for (const [gateway, map] of maps) this.all.set(gateway, new Map(map))
    this.#note('loaded')
  }

  onMark(mark: string): void {
    this.#note(`mark ${mark}`)
  }

  onReached(): void {}

  #note(what: string): void {
    this.events.push({ what, sizes: Object.fromEntries([...this.all].map(([id, { size }]) => [id, size])) })
  }
}

describeWith(['redis-server'], 'maps of several gateways', () => {
  let redis: RedisServer
  const opened: { maps: GatewayMaps; shared: SharedRedis }[] = []
  /** @param through changes the connection that reads */
  const start = async (lease = 1000, through = (follow: Redis): Redis => follow) => {
    const shared = await openSharedRedis({ url: redis.url, prefix: 'mqway:' }, log)
    const { redis: follow } = await openSharedRedis({ url: redis.url, prefix: 'mqway:' }, log)
    const follower = new TestFollower()
    const slicer = new TimeSlicer()
    const options = { shared, name: 'maps', leaderLease: 'mqway:leader', follower, slicer, log, lease }
    const maps = new GatewayMaps(options, through(follow))
    opened.push({ maps, shared })
    await maps.start()
    const set = (key: string, value: string | undefined): void => {
      if (value === undefined) follower.own.delete(key)
      else follower.own.set(key, value)
      maps.set(key, value)
    }
    return { shared, follower, maps, set }
  }
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(async () => {
    for (const { maps, shared } of opened.splice(0)) {
      await maps.close(1)
      await shared.close()
    }
    await redis.stop()
  })

  it('are read completely by one that has missed changes', async () => {
    const [a, b] = [await start(), await start()]
    b.set('first', '1')
    await eventually(() => a.follower.all.get(b.maps.id)?.has('first') === true)
    // A change that is no longer in the stream.
    await redis.client.multi().hset(`mqway:maps:of:${b.maps.id}`, 'missed', '2').incr('mqway:maps:head').exec()
    b.set('last', '3')
    await eventually(() => a.follower.all.get(b.maps.id)?.size === 3)
    expect(a.follower.events.filter(({ what }) => what === 'loaded')).toHaveLength(2)
  })

  it('are read as of one moment, while an entry moves', async () => {
    const [a, b] = [await start(), await start()]
    const byId = new Map([a, b].map(each => [each.maps.id, each]))
    for (const each of [a, b]) each.set('moves', '1')
    await eventually(() => [a, b].every(({ maps }) => a.follower.all.get(maps.id)?.size === 1))
    let scans = 0
    let target = ''
    const c = await start(1000, follow => {
      const scan = follow.hscan.bind(follow) as (...args: unknown[]) => unknown
      return Object.assign(follow, {
        hscan: async (key: string, ...rest: unknown[]) => {
          // From the map that is read last to the one that has been read.
          const second = byId.get(key.slice('mqway:maps:of:'.length))
          if (second && ++scans === 2) {
            const first = second === a ? b : a
            target = first.maps.id
            first.set('moved', '2')
            second.set('moves', undefined)
            await eventually(() => a.follower.all.get(target)?.size === 2)
            await eventually(() => a.follower.all.get(second.maps.id)?.size === 0)
          }
          return scan(key, ...rest)
        },
      })
    })
    expect(scans).toBe(2)
    expect(c.follower.events[0]?.sizes[target]).toBe(2)
  })

  it('stay until their gateway has written them again, after Redis has lost them', async () => {
    const [a, b] = [await start(300), await start(300)]
    for (let index = 0; index < 10_000; index++) b.set(`key-${index}`, '1')
    const former = b.maps.id
    await eventually(() => a.follower.all.get(former)?.size === 10_000)
    await redis.client.flushall()
    await eventually(() => a.follower.events.some(({ what }) => what === `left ${former}`))
    const left = a.follower.events.find(({ what }) => what === `left ${former}`)
    expect(left?.sizes).toMatchObject({ [former]: 10_000, [b.maps.id]: 10_000 })
    expect(a.maps.size).toBe(2)
  })

  it('stay when all leases have ended, until each gateway has had the time of one', async () => {
    const [a, b, c] = [await start(), await start(), await start()]
    b.set('key', '1')
    await c.shared.close()
    await eventually(() => a.maps.size === 2)
    await b.shared.close()
    await redis.client.del(...[a, b].map(({ maps }) => `mqway:maps:lease:${maps.id}`))
    for (const key of ['first', 'second', 'third']) {
      a.set(key, '1')
      await eventually(() => a.follower.all.get(a.maps.id)?.has(key) === true)
    }
    expect(a.follower.all.get(b.maps.id)?.size).toBe(1)
    await eventually(() => a.maps.size === 1)
    expect(await redis.client.keys('mqway:maps:of:*')).toHaveLength(1)
  })

  it('keep the name of a gateway whose batch was written, but not answered', async () => {
    const [a, b] = [await start(), await start()]
    const { id } = b.maps
    const commands = vi.spyOn(b.shared.redis, 'callBuffer')
    redis.pause()
    b.set('key', '1')
    await eventually(() => commands.mock.calls.some(args => args.includes('key')))
    b.shared.redis.disconnect(true)
    redis.resume()
    await eventually(() => a.follower.all.get(id)?.has('key') === true)
    b.set('later', '1')
    await eventually(() => a.follower.all.get(id)?.has('later') === true)
    expect(b.maps.id).toBe(id)
    const batches = await redis.client.xrange('mqway:maps', '-', '+')
    expect(batches.filter(([, fields]) => fields.includes('key'))).toHaveLength(1)
  })

  it('have marks of the gateway that leads, and of no other one', async () => {
    const [a, b] = [await start(), await start()]
    await redis.client.set('mqway:leader', 'right')
    expect(await a.maps.mark('wrong', 'refused')).toBeUndefined()
    expect(await a.maps.mark('right', 'taken')).toBeGreaterThan(0)
    await eventually(() => b.follower.events.some(({ what }) => what === 'mark taken'))
    expect(b.follower.events.map(({ what }) => what)).toEqual(['loaded', 'mark taken'])
  })

  it('remain of a gateway that ends for the time that it says', async () => {
    const [a, b] = [await start(60_000), await start(60_000)]
    const key = `mqway:maps:lease:${b.maps.id}`
    b.set('last', '1')
    await b.maps.close(5000)
    expect(await redis.client.pttl(key)).toBeLessThanOrEqual(5000)
    expect(await redis.client.exists(key)).toBe(1)
    await eventually(() => a.follower.all.get(b.maps.id)?.has('last') === true)
  })
})
