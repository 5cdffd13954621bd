import { once } from 'node:events'
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ConnectionLimits } from '../../src/access/limits.js'
import type { Peer } from '../../src/broker/broker.js'
import { type MqttListenerOptions, startMqttListener } from '../../src/server/mqtt-listener.js'
import { eventually } from '../helpers/wait.js'
import { closing, connected, portOf, received, recordingLog, refusals, temporaryDirectory, testMetrics } from './rig.js'

async function start(changed: Partial<MqttListenerOptions> = {}) {
  const recording = recordingLog()
  const metrics = testMetrics()
  const limits = new ConnectionLimits({ connections: 1, connectionsPerAddress: 10 })
  const accepted: { socket: Socket; peer: Peer }[] = []
  const listener = closing(
    await startMqttListener({
      host: '127.0.0.1',
      port: 0,
      maxConnections: 10,
      limits,
      nextId: () => '7',
      log: recording.log,
      metrics,
      accept: (socket, peer, log) => {
        accepted.push({ socket, peer })
        log.info('accepted')
      },
      ...changed,
    }),
  )
  return { ...recording, metrics, limits, listener, accepted }
}

describe('the MQTT port', () => {
  it('hands on a connection with who it is, before anything is read', async () => {
    const { listener, accepted, lines } = await start()
    const client = await connected(portOf(listener))
    client.end('hello')
    await eventually(() => accepted.length === 1)
    expect(accepted[0]?.peer).toEqual({
      connection: expect.any(String),
      address: '127.0.0.1',
      port: client.localPort,
      localAddress: '127.0.0.1',
      localPort: portOf(listener),
    })
    expect(lines[0]).toMatchObject({ connection: '7', peer: '127.0.0.1', msg: 'accepted' })
    const socket = accepted[0]?.socket
    let heard = ''
    if (socket) for await (const chunk of socket.iterator({ destroyOnReturn: false })) heard += chunk
    expect(heard).toBe('hello')
    socket?.end('world')
    expect(await received(client)).toBe('world')
  })

  it('closes what is over a limit, until there is room', async () => {
    const { listener, accepted, metrics, limits, line } = await start()
    const first = await connected(portOf(listener))
    await eventually(() => accepted.length === 1)
    const second = await connected(portOf(listener))
    await once(second.resume(), 'end')
    expect(await refusals(metrics, 'too-many-connections')).toBe(1)
    expect(await line(/^All connections are taken/)).toMatchObject({ level: 40, reason: 'too-many-connections' })
    first.resetAndDestroy()
    await eventually(() => limits.open === 0)
    await connected(portOf(listener))
    await eventually(() => accepted.length === 2)
  })

  it('closes a connection that could not be taken over', async () => {
    const { listener, metrics, limits } = await start({
      accept: () => {
        throw new Error('broken')
      },
    })
    const client = await connected(portOf(listener))
    await once(client.resume(), 'end')
    expect(await refusals(metrics, 'internal-error')).toBe(1)
    await eventually(() => limits.open === 0)
  })

  it('can be a Unix socket', async () => {
    const path = join(await temporaryDirectory(), 'mqtt')
    const { accepted } = await start({ port: `unix:${path}` })
    const client = connect(path)
    await eventually(() => accepted.length === 1)
    expect(accepted[0]?.peer).toMatchObject({ address: 'unix', port: 0, localAddress: '', localPort: 0 })
    client.destroy()
  })
})
