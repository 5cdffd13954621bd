import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { createWebSocketStream, WebSocket } from 'ws'
import { expectRefusal, otherBroker, testedBroker } from './broker.js'
import { Client } from './client.js'
import { authPacket, connectPacket, disconnectPacket, packet, pingreq, publishPacket, text } from './packets.js'

const broker = testedBroker()
const lasting = { cleanStart: false, properties: { sessionExpiryInterval: 60 } } as const

describe('PINGREQ', () => {
  it('[MQTT-3.12.4-1] gets PINGRESP', async () => {
    const client = await broker.connect()
    client.send(pingreq, pingreq)
    expect([await client.next(), await client.next()]).toEqual([{ type: 'pingresp' }, { type: 'pingresp' }])
  })

  it('with content ends the connection', async () => {
    const client = await broker.connect()
    await expectRefusal(client.send(packet(0xc0, Buffer.from([0]))), 0x81)
  })
})

describe('DISCONNECT', () => {
  it('[MQTT-3.14.4-1] [MQTT-3.14.4-2] is the last packet of the server, which ends the connection then', async () => {
    const client = await broker.connect()
    await client.subscribe('last/#')
    // The client checks that nothing follows.
    client.send(
      publishPacket('last/1', ''),
      connectPacket({ clientId: client.id }),
      publishPacket('last/2', ''),
      pingreq,
    )
    await expectRefusal(client, 0x82)
  })

  it('[MQTT-3.14.4-2] of the client ends the connection, and nothing is processed after it', async () => {
    const [client, watcher] = [await broker.connect(), await broker.connect()]
    await watcher.subscribe('after-disconnect')
    client.send(disconnectPacket(), publishPacket('after-disconnect', 'no'))
    expect(await client.refused()).toBeUndefined()
    await watcher.publish('after-disconnect', 'marker')
    expect(await watcher.payloadsBefore('marker')).toEqual([])
  })

  it('[MQTT-3.14.2-1] [MQTT-3.14.2-2] of the server has a code of its table, and no session expiry interval', async () => {
    const client = await broker.connect(lasting)
    await expectRefusal(client.send(packet(0x00)), 0x81, 0x82)
  })

  it.each([0x01, 0x03, 0x10, 0x8b, 0x8d, 0x8e, 0xff])(
    '[MQTT-3.14.2-1] with 0x%x, which no client may send, ends the connection',
    async code => {
      const client = await broker.connect()
      await expectRefusal(client.send(disconnectPacket(code)), 0x81, 0x82)
    },
  )

  it('[MQTT-3.14.2-3] [MQTT-3.14.2-4] of the server is not larger than the client takes', async () => {
    const client = await broker.connect({ properties: { maximumPacketSize: 20 } })
    await expectRefusal(client.send(connectPacket({ clientId: client.id })), 0x82)
  })

  it('changes the session’s expiry', async () => {
    const first = await broker.connect(lasting)
    await first.disconnect(disconnectPacket(0, { sessionExpiryInterval: 0 }))
    const second = await broker.open()
    expect(await second.connect({ ...lasting, clientId: first.id })).toMatchObject({ sessionPresent: false })
  })

  it('cannot give an expiry to a session that had none', async () => {
    const first = await broker.connect()
    await expectRefusal(first.send(disconnectPacket(0, { sessionExpiryInterval: 60 })), 0x82)
    const second = await broker.open()
    expect(await second.connect({ clientId: first.id, cleanStart: false })).toMatchObject({ sessionPresent: false })
  })
})

describe('enhanced authentication', () => {
  it('[MQTT-4.12.0-1] [MQTT-4.12.0-4] a method is refused', async () => {
    const client = await broker.open()
    const connect = connectPacket({
      clientId: client.id,
      properties: { authenticationMethod: 'SCRAM-SHA-1', authenticationData: Buffer.from('x') },
    })
    await expectRefusal(client.send(connect), 0x8c, 0x87)
  })

  it('[MQTT-4.12.0-6] without a method the server sends neither AUTH nor a method', async () => {
    const client = await broker.open()
    expect((await client.connect()).properties).not.toHaveProperty('authenticationMethod')
  })

  it('[MQTT-4.12.0-7] [MQTT-4.12.1-2] AUTH without a method ends the connection', async () => {
    for (const [code, method] of [
      [0x18, 'x'],
      [0x19, 'x'],
      [0, undefined],
    ] as const) {
      const client = await broker.connect()
      const auth = authPacket(code, method === undefined ? {} : { authenticationMethod: method })
      await expectRefusal(client.send(auth), 0x81, 0x82, 0x8c)
    }
  })

  it.each([0x01, 0x1a, 0x80, 0xff])('[MQTT-3.15.2-1] AUTH with 0x%x ends the connection', async code => {
    const client = await broker.connect()
    await expectRefusal(client.send(authPacket(code, { authenticationMethod: 'x' })), 0x81, 0x82, 0x8c)
  })
})

describe('errors', () => {
  it.each([
    ['a packet of type 0', packet(0)],
    ['a CONNACK', Buffer.from('2003000000', 'hex')],
    ['a SUBACK', Buffer.from('900400010000', 'hex')],
    ['an UNSUBACK', Buffer.from('b00400010000', 'hex')],
    ['a PINGRESP', Buffer.from('d000', 'hex')],
    ['a PUBLISH that is cut short', packet(0x32, text('t'))],
    ['a topic that is longer than its packet', Buffer.from('300400ff7400', 'hex')],
  ])('[MQTT-4.13.1-1] %s ends the connection', async (_, bytes) => {
    const client = await broker.connect()
    await expectRefusal(client.send(bytes), 0x81, 0x82)
  })

  it('[MQTT-4.13.2-1] no other client notices', async () => {
    const [client, bystander] = [await broker.connect(), await broker.connect()]
    await bystander.subscribe('bystander')
    await client.send(packet(0)).refused()
    await bystander.publish('bystander', 'x', { qos: 1 })
    expect(await bystander.message()).toMatchObject({ payload: 'x' })
  })
})

it('[MQTT-4.1.0-1] the session lasts as long as the connection, whatever its expiry interval', async () => {
  const [client, publisher] = [
    await broker.connect({ properties: { sessionExpiryInterval: 0 } }),
    await broker.connect(),
  ]
  await client.subscribe(['while-connected', 1])
  for (let n = 0; n < 3; n++) {
    await publisher.publish('while-connected', '', { qos: 1 })
    await client.message()
  }
})

describe.skipIf(otherBroker > 0)('WebSocket', () => {
  const open = async (protocols: string[]): Promise<WebSocket> => {
    const socket = new WebSocket(`${broker.gateway().urls.http.replace('http', 'ws')}/mqtt`, protocols)
    await once(socket, 'open')
    return socket
  }

  it('[MQTT-4.2.0-1] [MQTT-6.0.0-4] MQTT 5 is spoken over it with the subprotocol mqtt', async () => {
    const socket = await open(['other', 'mqtt'])
    expect(socket.protocol).toBe('mqtt')
    const client = new Client(createWebSocketStream(socket))
    expect(await client.connect()).toMatchObject({ code: 0 })
    await client.subscribe('websocket')
    await client.publish('websocket', 'x', { properties: { contentType: 'text/plain' } })
    expect(await client.message()).toMatchObject({ payload: 'x', properties: { contentType: 'text/plain' } })
    client.destroy()
  })

  it('[MQTT-6.0.0-1] a text frame ends the connection', async () => {
    const socket = await open(['mqtt'])
    socket.send('text')
    const [code] = await once(socket, 'close')
    expect(code).toBe(1003)
  })

  it('[MQTT-6.0.0-2] packets need not begin where frames do', async () => {
    const socket = await open(['mqtt'])
    const stream = createWebSocketStream(socket)
    const client = new Client(stream)
    const bytes = Buffer.concat([connectPacket({ clientId: client.id }), pingreq, pingreq])
    for (const byte of bytes.subarray(0, -1)) socket.send(Buffer.from([byte]))
    expect(await client.next()).toMatchObject({ type: 'connack' })
    socket.send(Buffer.concat([bytes.subarray(-1), pingreq]))
    await client.take('pingresp')
    await client.take('pingresp')
    await client.take('pingresp')
    client.destroy()
  })

  it('[MQTT-3.14.4-1] a DISCONNECT comes before the close frame', async () => {
    const socket = await open(['mqtt'])
    const client = new Client(createWebSocketStream(socket))
    await client.connect()
    await expectRefusal(client.send(packet(0)), 0x81, 0x82)
  })
})
