import { once } from 'node:events'
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net'
import { PassThrough } from 'node:stream'
import { generate, parser } from 'mqtt-packet'
import { afterEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { createUpstream } from '../../../src/broker/upstream/upstream.js'
import { upstreamAt } from '../../../src/config/schema.js'
import { MemoryJournal } from '../../../src/journal/memory-journal.js'
import { Connection } from '../../../src/mqtt/connection.js'
import { plain } from '../../../src/mqtt/protocol-profile.js'
import { ReconnectingConnection } from '../../../src/mqtt/reconnecting-connection.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { eventually } from '../../helpers/wait.js'
import { bounds, Cleanup, log, openWithout, refusedVersions, sessionOn } from '../rig.js'

const cleanup = new Cleanup()
afterEach(() => cleanup.run())

/** A broker that ends each connection as soon as it has let it in. */
async function fickleBroker(): Promise<number> {
  const server = createServer(socket => {
    const incoming = parser({ protocolVersion: 4 })
    incoming.on('packet', () => socket.end(generate({ cmd: 'connack', returnCode: 0, sessionPresent: false })))
    socket.on('data', chunk => incoming.parse(chunk)).on('error', () => {})
  }).listen(0, '127.0.0.1')
  cleanup.add(() => server.close())
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

it('a connection that the broker ends soon is tried again less and less often, until one has lasted', async () => {
  const port = await fickleBroker()
  const waits: number[] = []
  let now = 0
  let onWaited = (): void => {}
  const enough = new Promise<void>(resolve => {
    onWaited = resolve
  })
  const own = { clientId: 'c', clean: true, keepAlive: 0, connectTimeout: 5000, profile: plain }
  const link = new ReconnectingConnection({
    connect: () => Connection.connect({ ...own, stream: connectTcp(port, '127.0.0.1') }),
    onUp: () => {
      // The fifth lasts for long.
      if (waits.length === 4) now += 10_000
    },
    onDown: () => {},
    clock: {
      now: () => now,
      wait: async milliseconds => {
        waits.push(milliseconds)
        if (waits.length === 6) onWaited()
      },
    },
  })
  cleanup.add(() => link.close())
  await enough
  const longest = [200, 1000, 2000, 4000, 200, 1000]
  for (const [index, wait] of waits.slice(0, 6).entries()) {
    expect(wait).toBeLessThanOrEqual(longest[index] ?? 0)
    expect(wait).toBeGreaterThanOrEqual((longest[index] ?? 0) / 2)
  }
})

describe.each(['MQTT 5', 'MQTT 3.1.1'] as const)('two gateways with one client id and %s', dialect => {
  it('say so, once, and what to do', async () => {
    const mosquitto = await startMosquitto()
    cleanup.add(() => mosquitto.stop())
    const broker = createUpstream(upstreamAt(`mqtt://127.0.0.1:${mosquitto.port}`), log)
    cleanup.add(() => broker.close())
    const destination = new PassThrough()
    const lines: string[] = []
    destination.on('data', chunk => lines.push(...String(chunk).trim().split('\n')))
    const losses = { count: 0 }
    for (const level of ['error', 'silent'] as const) {
      const journal = new MemoryJournal({ bounds, log })
      cleanup.add(() => journal.close())
      const session = await sessionOn(broker, journal, {
        open: () => openWithout(broker, refusedVersions[dialect]),
        config: { clientId: 'both' },
        log: createLog({ level, format: 'json' }, destination),
        onStateChange: ready => {
          if (!ready) losses.count++
        },
      })
      cleanup.add(() => session.close())
    }
    await eventually(() => lines.length > 0 && losses.count >= 3)
    expect(lines).toHaveLength(1)
    expect(lines[0]).toContain('push.clientId')
    expect(lines[0]).toContain('both')
  })
})
