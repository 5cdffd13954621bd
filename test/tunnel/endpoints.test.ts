import { once } from 'node:events'
import net from 'node:net'
import { generate } from 'mqtt-packet'
import { afterEach, describe, expect, it } from 'vitest'
import type { WebSocket } from 'ws'
import { GatewayError } from '../../src/base/errors.js'
import type { WebSocketEndpointOptions } from '../../src/tunnel/endpoints.js'
import { startTunnelRig, type TunnelRig } from '../helpers/tunnel-rig.js'
import { eventually } from '../helpers/wait.js'

const open: TunnelRig[] = []
const start = async (options: Partial<WebSocketEndpointOptions> = {}): Promise<TunnelRig> => {
  const rig = await startTunnelRig(socket => void socket.pipe(socket), options)
  open.push(rig)
  return rig
}
afterEach(async () => {
  await Promise.all(open.splice(0).map(rig => rig.close()))
})

/** The subprotocol that the client was given; rejects when it was refused. */
const agreed = async (client: WebSocket): Promise<string> => {
  await once(client, 'open')
  return client.protocol
}
const refused = async (rig: TunnelRig, client: WebSocket): Promise<GatewayError | undefined> => {
  await expect(once(client, 'open')).rejects.toThrow(/Unexpected server response/)
  return rig.refusals.at(-1)
}

describe('the subprotocol', () => {
  it.each([
    [['mqtt'], 'mqtt'],
    [['mqttv3.1'], 'mqttv3.1'],
    [['mqtt', 'mqttv3.1'], 'mqtt'],
    [['mqttv3.1', 'mqtt'], 'mqttv3.1'],
    [['chat', 'mqtt'], 'mqtt'],
  ])('of an offer of %j is %s', async (offer, expected) => {
    const rig = await start()
    expect(await agreed(rig.connect(offer))).toBe(expected)
  })

  it('may be missing, as with mod_websocket', async () => {
    const rig = await start()
    expect(await agreed(rig.connect([]))).toBe('')
  })

  it('may be required: an upgrade without one is refused with 400 and what to offer', async () => {
    const rig = await start({ requireSubprotocol: true })
    expect(await refused(rig, rig.connect([]))).toMatchObject({ reason: 'subprotocol-required', httpStatus: 400 })
    expect(rig.refusals.at(-1)?.text).toContain('offer mqtt or mqttv3.1')
  })

  it('that is not spoken here is refused with 400', async () => {
    const rig = await start()
    expect(await refused(rig, rig.connect(['chat']))).toMatchObject({
      reason: 'unsupported-subprotocol',
      httpStatus: 400,
    })
  })

  it('can be forced on clients that offer none', async () => {
    const rig = await start({ forceSubprotocol: 'mqttv3.1' })
    const socket = net.connect(rig.port, '127.0.0.1')
    socket.write(
      'GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    )
    const [answer] = await once(socket, 'data')
    expect(String(answer)).toContain('Sec-WebSocket-Protocol: mqttv3.1\r\n')
    socket.destroy()
  })
})

describe('the handshake', () => {
  it.each([
    ['broker-refused', 502],
    ['broker-timeout', 504],
  ] as const)('is answered only when the broker is there: %s is a %i', async (reason, status) => {
    const broker = { name: 'down', open: async () => Promise.reject(new GatewayError(reason)), close: async () => {} }
    const rig = await start({ broker })
    expect(await refused(rig, rig.connect())).toMatchObject({ reason, httpStatus: status })
    expect(rig.tunnels.size).toBe(0)
  })

  it('of a client that leaves while the broker is dialled leaves no connection to the broker', async () => {
    const server = net.createServer()
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const accepted = once(server, 'connection')
    let proceed = (): void => {}
    const proceeding = new Promise<void>(resolve => {
      proceed = resolve
    })
    const address = server.address() as net.AddressInfo
    let dialled = (): void => {}
    const dialling = new Promise<void>(resolve => {
      dialled = resolve
    })
    const broker = {
      name: 'slow',
      open: async () => {
        dialled()
        await proceeding
        return net.connect(address.port, '127.0.0.1')
      },
      close: async () => {},
    }
    const rig = await start({ broker })
    const client = net.connect(rig.port, '127.0.0.1')
    client.write(
      'GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
        'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    )
    await dialling
    client.resetAndDestroy()
    await once(client, 'close')
    proceed()
    const [socket] = (await accepted) as [net.Socket]
    socket.resume()
    socket.once('end', () => socket.end())
    await once(socket, 'close')
    await eventually(() => rig.tunnels.size === 0)
    server.close()
  })
})

describe('the first packet', () => {
  const connect = generate({ cmd: 'connect', clientId: 'me', protocolVersion: 4, clean: true, keepalive: 60 })

  it('goes through unchanged, with what follows in the same frame', async () => {
    const rig = await start({ inspectConnect: true })
    const client = rig.connect()
    await once(client, 'open')
    const bytes = Buffer.concat([connect, generate({ cmd: 'pingreq' })])
    client.send(bytes.subarray(0, 5))
    client.send(bytes.subarray(5))
    const [echoed] = await once(client, 'message')
    expect(echoed).toEqual(bytes)
  })

  it.each([
    ['is not a CONNECT', generate({ cmd: 'pingreq' }), 1002, /^The first packet must be a valid MQTT CONNECT/],
    ['is too large', Buffer.from([0x10, 0xff, 0xff, 0xff, 0x01]), 1009, /^The MQTT CONNECT packet is too large/],
  ])(
    'ends the connection with a reason when it %s, and the broker sees nothing of it',
    async (_name, bytes, code, text) => {
      const rig = await start({ inspectConnect: true })
      const client = rig.connect()
      await once(client, 'open')
      client.send(bytes)
      const [closeCode, reason] = await once(client, 'close')
      expect(closeCode).toBe(code)
      expect(String(reason)).toMatch(text)
      expect(rig.brokerSockets[0]?.bytesRead).toBe(0)
    },
  )

  it('has to be complete in time', async () => {
    const rig = await start({ inspectConnect: true, connectTimeout: 30 })
    const client = rig.connect()
    await once(client, 'open')
    client.send(connect.subarray(0, 10))
    const [code] = await once(client, 'close')
    expect(code).toBe(1008)
  })

  it('may be anything when it is not inspected', async () => {
    const rig = await start({ inspectConnect: false })
    const client = rig.connect()
    await once(client, 'open')
    client.send(Buffer.from('hello'))
    const [echoed] = await once(client, 'message')
    expect(String(echoed)).toBe('hello')
  })
})
