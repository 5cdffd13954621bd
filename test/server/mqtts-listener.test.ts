import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { describe, expect, it, onTestFinished } from 'vitest'
import { ConnectionLimits } from '../../src/access/limits.js'
import { SiteRules } from '../../src/access/site-rules.js'
import { SocketLimits } from '../../src/access/socket-limits.js'
import { UserLimits } from '../../src/access/user-limits.js'
import { GatewayError } from '../../src/base/errors.js'
import { identityOf } from '../../src/base/identity.js'
import type { Peer } from '../../src/broker/broker.js'
import { startCertificateSet } from '../../src/server/certificate-set.js'
import { type MqttsListenerOptions, startMqttsListener } from '../../src/server/mqtt-listener.js'
import { eventually } from '../helpers/wait.js'
import {
  closing,
  connected,
  portOf,
  received,
  recordingLog,
  refusals,
  temporaryDirectory,
  testMetrics,
  writeCertificate,
} from './rig.js'

async function start(changed: Partial<MqttsListenerOptions> = {}) {
  const recording = recordingLog()
  const metrics = testMetrics()
  const limits = new ConnectionLimits({ connections: 10, connectionsPerAddress: 10 })
  const accepted: { socket: Socket; peer: Peer }[] = []
  const files = await writeCertificate(await temporaryDirectory())
  const certificates = await startCertificateSet({
    ...{ files, named: [], minVersion: 'TLSv1.2' as const, log: recording.log, metrics },
  })
  onTestFinished(() => certificates.close())
  const listener = closing(
    await startMqttsListener({
      ...{ host: '127.0.0.1', port: 0, maxConnections: 10, limits, log: recording.log, metrics, certificates },
      nextId: () => '7',
      handshakeTimeout: 10_000,
      users: new UserLimits('off'),
      accept: (socket, peer, log) => {
        accepted.push({ socket, peer })
        log.info('accepted')
      },
      ...changed,
    }),
  )
  return { ...recording, metrics, limits: changed.limits ?? limits, listener, accepted }
}

async function secured(options: ConnectionOptions): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', rejectUnauthorized: false, ...options })
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  await once(socket, 'secureConnect')
  return socket
}

describe('the port of MQTT over TLS', () => {
  it('hands on a connection with its peer after the handshake, half-open, before anything is read', async () => {
    const { listener, accepted, limits, line } = await start()
    const client = await secured({ port: portOf(listener), ...{ allowHalfOpen: true } })
    client.end('hello')
    await eventually(() => accepted.length === 1)
    expect(accepted[0]?.peer).toEqual({
      connection: '7',
      address: '127.0.0.1',
      port: client.localPort,
      localAddress: '127.0.0.1',
      localPort: portOf(listener),
    })
    expect(await line(/accepted/)).toMatchObject({ connection: '7', peer: '127.0.0.1' })
    expect(limits.open).toBe(1)
    const socket = accepted[0]?.socket
    let heard = ''
    if (socket) for await (const chunk of socket.iterator({ destroyOnReturn: false })) heard += chunk
    expect(heard).toBe('hello')
    socket?.end('world')
    expect(await received(client)).toBe('world')
    await eventually(() => limits.open === 0)
  })

  it('closes a connection whose handshake takes too long, whether it sends nothing or a part', async () => {
    const { listener, accepted, metrics, limits } = await start({ handshakeTimeout: 100 })
    const silent = await connected(portOf(listener))
    const slow = await connected(portOf(listener))
    // The header of a TLS record, without the record.
    slow.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00]))
    await Promise.all([silent, slow].map(socket => once(socket.resume(), 'end')))
    expect(await refusals(metrics, 'handshake-timeout')).toBe(2)
    expect(accepted).toEqual([])
    expect(limits.open).toBe(0)
  })

  it('closes a connection that speaks plain MQTT', async () => {
    const { listener, metrics, line } = await start()
    const client = await connected(portOf(listener))
    client.write(Buffer.from('101000044d5154540402003c000474657374', 'hex'))
    await once(client.resume(), 'end')
    expect(await refusals(metrics, 'tls-failed')).toBe(1)
    expect(await line(/^The TLS handshake failed/)).toMatchObject({ reason: 'tls-failed', peer: '127.0.0.1' })
  })

  it('counts no refusal for a client that leaves during the handshake', async () => {
    const { listener, metrics, line } = await start()
    const client = await connected(portOf(listener))
    client.resetAndDestroy()
    expect(await line(/^The TLS handshake failed/)).toMatchObject({ code: 'ECONNRESET' })
    expect(await refusals(metrics, 'tls-failed')).toBe(0)
  })

  it('refuses addresses that may not connect, or connect too often, before the handshake', async () => {
    const forbidden = await start({ site: new SiteRules({ allow: ['192.0.2.1'], deny: [] }) })
    const first = await connected(portOf(forbidden.listener))
    await once(first.resume(), 'end')
    expect(await refusals(forbidden.metrics, 'address-refused')).toBe(1)

    const limits = new ConnectionLimits({
      connections: 10,
      connectionsPerAddress: 10,
      upgradesPerSecond: 1,
      upgradesBurst: 1,
      now: () => 0,
    })
    const limited = await start({ limits })
    await secured({ port: portOf(limited.listener) })
    const second = await connected(portOf(limited.listener))
    await once(second.resume(), 'end')
    expect(await refusals(limited.metrics, 'connecting-too-fast')).toBe(1)
    await eventually(() => limited.accepted.length === 1)
  })

  it('closes what is over a limit, until there is room', async () => {
    const limits = new ConnectionLimits({ connections: 1, connectionsPerAddress: 10 })
    const { listener, accepted, metrics } = await start({ limits })
    const first = await secured({ port: portOf(listener) })
    await eventually(() => accepted.length === 1)
    const second = await connected(portOf(listener))
    await once(second.resume(), 'end')
    expect(await refusals(metrics, 'too-many-connections')).toBe(1)
    first.destroy()
    accepted[0]?.socket.resume().end()
    await eventually(() => limits.open === 0)
    await secured({ port: portOf(listener) })
    await eventually(() => accepted.length === 2)
  })

  it('bounds the sockets of one address that make no handshake', async () => {
    const sockets = new SocketLimits({ perAddress: 2, trustedProxies: [] })
    const { listener, metrics } = await start({ sockets, handshakeTimeout: 500 })
    for (let i = 0; i < 2; i += 1) await connected(portOf(listener))
    const third = await connected(portOf(listener))
    await once(third.resume(), 'end')
    expect(await refusals(metrics, 'too-many-from-address')).toBe(1)
    // Until their handshakes have timed out.
    await eventually(() => sockets.addresses === 0)
  })

  it('refuses a client whose certificate is refused, and counts the connections of users', async () => {
    const users = new UserLimits(1)
    let refusal: GatewayError | undefined = new GatewayError('identity-refused', { hint: 'the certificate is old' })
    const { listener, accepted, metrics, line } = await start({
      users,
      identify: async () => {
        if (refusal) throw refusal
        return identityOf('alice', 'certificate', {})
      },
    })
    const port = portOf(listener)
    await once((await secured({ port })).resume(), 'close')
    expect(await line(/the certificate is old/)).toMatchObject({ level: 40, reason: 'identity-refused' })
    expect(users.users).toBe(0)

    refusal = undefined
    const first = await secured({ port })
    expect(await line(/accepted/)).toMatchObject({ user: 'alice', identity: 'certificate' })
    expect(accepted[0]?.peer.identity?.user).toBe('alice')
    await once((await secured({ port })).resume(), 'close')
    expect(await refusals(metrics, 'too-many-from-user')).toBe(1)
    first.destroy()
    accepted[0]?.socket.resume().end()
    await eventually(() => users.users === 0)
  })

  it('does not count a client that leaves while it is identified', async () => {
    const users = new UserLimits(1)
    let identified: () => void = () => {}
    let isGone: () => boolean = () => false
    const { listener, accepted, limits } = await start({
      users,
      identify: socket => {
        isGone = () => 'destroyed' in socket && socket.destroyed === true
        return new Promise(resolve => {
          identified = () => resolve(identityOf('alice', 'certificate', {}))
        })
      },
    })
    const tcp = await connected(portOf(listener))
    await secured({ socket: tcp })
    await eventually(() => limits.open === 1)
    tcp.resetAndDestroy()
    await eventually(() => isGone())
    expect(limits.open).toBe(1)
    identified()
    await eventually(() => limits.open === 0)
    expect(accepted).toEqual([])
    expect(users.users).toBe(0)
  })

  it('names its option when its port is taken', async () => {
    const { listener } = await start()
    await expect(start({ port: portOf(listener) })).rejects.toThrow(
      /^port \d+ on 127\.0\.0\.1 is taken: choose another, such as mqtts\.port \d+$/,
    )
  })

  it('can be a Unix socket', async () => {
    const path = join(await temporaryDirectory(), 'mqtts')
    const { accepted } = await start({ port: `unix:${path}` })
    await secured({ path, socket: connectTcp(path) })
    await eventually(() => accepted.length === 1)
    expect(accepted[0]?.peer).toMatchObject({ address: 'unix', port: 0, localAddress: '', localPort: 0 })
  })

  it('ends open connections and handshakes when it closes', async () => {
    const { listener, accepted } = await start()
    const open = await secured({ port: portOf(listener) })
    const silent = await connected(portOf(listener))
    await eventually(() => accepted.length === 1)
    const closed = listener.close()
    listener.destroyConnections()
    await Promise.all([closed, once(open.resume(), 'close'), once(silent.resume(), 'end')])
  })
})
