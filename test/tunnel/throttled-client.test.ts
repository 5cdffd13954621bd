import { once } from 'node:events'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { WebSocket } from 'ws'
import { identityOf } from '../../src/base/identity.js'
import type { Client, ClientListener } from '../../src/tunnel/client.js'
import { type Direction, ThrottledClient } from '../../src/tunnel/throttled-client.js'
import { startTunnelRig, type TunnelRig } from '../helpers/tunnel-rig.js'
import { eventually } from '../helpers/wait.js'

const rigs: TunnelRig[] = []
afterEach(async () => {
  vi.useRealTimers()
  await Promise.all(rigs.splice(0).map(rig => rig.close()))
})

/** A client that has as much to send as is taken, and takes what it is given, until it is told otherwise. */
class Endless implements Client {
  readonly transport = 'tcp'
  readonly bufferedBytes = 0
  paused = false
  full = false
  written = 0
  listener: ClientListener | undefined
  start(listener: ClientListener): void {
    this.listener = listener
  }
  write(bytes: Buffer): boolean {
    this.written += bytes.length
    return !this.full
  }
  pause(): void {
    this.paused = true
  }
  resume(): void {
    this.paused = false
  }
  finish(): void {}
  destroy(): void {}
}

describe('a throttled client, with a fake clock', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })

  function start(bytesPerSecond = 1000) {
    const client = new Endless()
    const pauses: Record<Direction, number> = { in: 0, out: 0 }
    const onPause = (direction: Direction, seconds: number): void => {
      pauses[direction] += seconds
    }
    const throttled = new ThrottledClient(client, { bytesPerSecond, onPause, now: () => Date.now() })
    const counts = { sent: 0, drained: 0 }
    throttled.start({
      clientSent: bytes => {
        counts.sent += bytes.length
        return true
      },
      clientDrained: () => {
        counts.drained++
      },
      clientEnded: () => {},
      clientClosed: () => {},
    })
    return { client, throttled, pauses, counts }
  }

  it.each([1, 7, 100, 999, 5000])('reads exactly as many bytes as time allows, in chunks of %i', size => {
    const { client, counts, pauses } = start()
    const seconds = 60
    for (let ms = 0; ms < seconds * 1000; ms++) {
      while (!client.paused) client.listener?.clientSent(Buffer.alloc(size))
      vi.advanceTimersByTime(1)
    }
    // One second's worth at once, then by the second; and the last chunk whole.
    expect(counts.sent).toBeGreaterThanOrEqual((seconds + 1) * 1000 - size)
    expect(counts.sent).toBeLessThanOrEqual((seconds + 1) * 1000 + size)
    expect(pauses.in).toBeGreaterThan(seconds - 1 - size / 1000)
    expect(pauses.out).toBe(0)
  })

  it.each([1, 100, 5000])('writes exactly as many bytes as time allows, in chunks of %i', size => {
    const { client, throttled, counts, pauses } = start()
    let open = true
    for (let ms = 0; ms < 60_000; ms++) {
      while (open) open = throttled.write(Buffer.alloc(size))
      const { drained } = counts
      vi.advanceTimersByTime(1)
      open = counts.drained > drained
    }
    expect(client.written).toBeGreaterThanOrEqual(61_000 - size)
    expect(client.written).toBeLessThanOrEqual(61_000 + size)
    expect(pauses.in).toBe(0)
  })

  it('counts bytes that carry no MQTT, too: pings do not evade the limit', () => {
    const { client, pauses } = start(1000)
    client.listener?.clientSentOther?.(3000)
    expect(client.paused).toBe(true)
    expect(pauses.in).toBe(2)
    vi.advanceTimersByTime(2000)
    expect(client.paused).toBe(false)
  })

  it('waits for the slower of the limit and the receiver', () => {
    const { client, throttled, counts } = start()
    client.listener?.clientSent(Buffer.alloc(2000))
    throttled.pause()
    vi.advanceTimersByTime(5000)
    expect(client.paused).toBe(true)
    throttled.resume()
    expect(client.paused).toBe(false)
    client.listener?.clientSent(Buffer.alloc(2000))
    throttled.pause()
    throttled.resume()
    expect(client.paused).toBe(true)

    client.full = true
    expect(throttled.write(Buffer.alloc(2000))).toBe(false)
    vi.advanceTimersByTime(5000)
    expect(counts.drained).toBe(0)
    client.listener?.clientDrained()
    expect(counts.drained).toBe(1)
  })

  it('delays nothing, and has no timer, after `finish`', () => {
    const { client, throttled } = start()
    client.listener?.clientSent(Buffer.alloc(1_000_000))
    expect(vi.getTimerCount()).toBe(1)
    throttled.destroy()
    expect(client.paused).toBe(false)
    expect(vi.getTimerCount()).toBe(0)
    client.listener?.clientSent(Buffer.alloc(1_000_000))
    expect(vi.getTimerCount()).toBe(0)
  })
})

/** A broker that reads, and ends when its client does. */
const reading = (socket: Socket): Socket => socket.on('end', () => socket.end()).resume()

const start = async (onBroker: (socket: Socket) => void, limits: Parameters<typeof startTunnelRig>[3] = {}) => {
  // What has the longest pause here is not waited for any longer than this.
  const rig = await startTunnelRig(onBroker, { closeTimeout: 500 }, false, limits)
  rigs.push(rig)
  return rig
}

async function opened(rig: TunnelRig): Promise<WebSocket> {
  const client = rig.connect()
  await once(client, 'open')
  return client
}

describe('a tunnel with a limit', () => {
  it.each(['up', 'down'] as const)(
    'takes the time that it should, %s, whatever the sockets buffer',
    async direction => {
      const bytesPerSecond = 256 * 1024
      const total = 3 * bytesPerSecond
      let arrived = 0
      let done = (): void => {}
      const all = new Promise<void>(resolve => {
        done = resolve
      })
      const count = (chunk: Buffer): void => {
        arrived += chunk.length
        if (arrived >= total) done()
      }
      const rig = await start(
        socket => {
          if (direction === 'down') socket.write(Buffer.alloc(total))
          socket.on('data', count)
        },
        { bytesPerSecond },
      )
      const begin = performance.now()
      const client = await opened(rig)
      client.on('message', count)
      if (direction === 'up') client.send(Buffer.alloc(total))
      await all
      const seconds = (performance.now() - begin) / 1000
      // The first second's worth passes at once, and what one read brings is not held back.
      expect(seconds).toBeGreaterThan(1.7)
      expect(seconds).toBeLessThan(4)
      const label = direction === 'up' ? 'in' : 'out'
      const throttled = await rig.count('mqway_throttled_seconds_total', { direction: label })
      expect(throttled).toBeGreaterThan(1.5)
      expect(throttled).toBeLessThan(2.5)
      expect(arrived).toBe(total)
    },
  )

  it('ends in time, also in the middle of a long pause', async () => {
    const rig = await start(socket => void reading(socket).write(Buffer.alloc(1024 * 1024)), { bytesPerSecond: 1024 })
    const client = await opened(rig)
    client.close(1000)
    const [code] = await once(client, 'close')
    expect(code).toBe(1000)
    await eventually(() => rig.tunnels.size === 0)
  })
})

describe('a tunnel whose identity expires', () => {
  it('ends with 1008 and a sentence at that time, and its broker sees the end', async () => {
    const ended: Promise<unknown>[] = []
    const expires = Date.now() + 300
    const identity = identityOf('alice', 'token', { expires })
    const rig = await start(socket => void ended.push(once(reading(socket), 'end')), { identity })
    const client = await opened(rig)
    const [code, reason] = await once(client, 'close')
    expect([code, String(reason)]).toEqual([1008, 'Credentials expired'])
    expect(Date.now()).toBeGreaterThanOrEqual(expires)
    await Promise.all(ended)
    await eventually(() => rig.tunnels.size === 0)
    expect(await rig.count('mqway_endings_total', { reason: 'identity-expired' })).toBe(1)
  })

  it('leaves no timer behind when it ended before', async () => {
    const identity = identityOf('alice', 'token', { expires: Date.now() + 3_600_000 })
    const timers = (): number => process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
    const rig = await start(socket => void reading(socket), { identity })
    const before = timers()
    const client = await opened(rig)
    client.terminate()
    await eventually(() => rig.tunnels.size === 0)
    expect(timers()).toBeLessThanOrEqual(before)
    expect(await rig.count('mqway_endings_total', { reason: 'identity-expired' })).toBe(0)
  })

  it('goes on where the identity does not expire', async () => {
    const rig = await start(socket => void socket.pipe(socket), { identity: identityOf('alice', 'password') })
    const client = await opened(rig)
    client.send('x', { binary: true })
    const [echo] = await once(client, 'message')
    expect(String(echo)).toBe('x')
  })
})
