import { connectAsync, type MqttClient } from 'mqtt'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startTestGateway, type TestGateway } from '../../helpers/gateway.js'
import { eventually } from '../../helpers/wait.js'

/** Bursts that publishers send as fast as they can: publishers, messages of each, bytes of a message. */
const bursts = [
  { publishers: 1, messages: 5, size: 700_000, qos: 1 },
  { publishers: 1, messages: 5, size: 700_000, qos: 0 },
  { publishers: 20, messages: 1, size: 100_000, qos: 2 },
  { publishers: 30, messages: 50, size: 1000, qos: 1 },
  { publishers: 30, messages: 50, size: 1000, qos: 0 },
  { publishers: 20, messages: 400, size: 200, qos: 0 },
  { publishers: 3, messages: 1, size: 12_000_000, qos: 1 },
] as const

describe.each(['MQTT over TCP', 'the tunnel over WebSocket'] as const)('a burst over %s', transport => {
  let gateway: TestGateway
  let clients: MqttClient[] = []
  let ended: string[] = []

  const connect = async (): Promise<MqttClient> => {
    const url = transport === 'MQTT over TCP' ? gateway.urls.mqtt : `${gateway.urls.http.replace('http', 'ws')}/mqtt`
    const client = await connectAsync(url, { reconnectPeriod: 0, protocolVersion: 4 })
    client.on('close', () => ended.push('closed'))
    clients.push(client)
    return client
  }

  beforeEach(async () => {
    gateway = await startTestGateway({ https: { port: 'off' } })
  })
  afterEach(async () => {
    await Promise.all(clients.map(client => client.endAsync(true)))
    clients = []
    ended = []
    await gateway.close()
  })

  it.each(bursts)('arrives whole for two subscribers: %j', async ({ publishers, messages, size, qos }) => {
    const got = [0, 0]
    for (const index of got.keys()) {
      const subscriber = await connect()
      subscriber.on('message', () => {
        got[index] = (got[index] ?? 0) + 1
      })
      await subscriber.subscribeAsync('burst/#', { qos })
    }
    const senders = await Promise.all(Array.from({ length: publishers }, connect))
    const payload = Buffer.alloc(size, 'x')
    await Promise.all(
      senders.flatMap(sender =>
        Array.from({ length: messages }, () => sender.publishAsync('burst/x', payload, { qos })),
      ),
    )
    await eventually(() => ended.length > 0 || got.every(count => count === publishers * messages))
    expect({ got, ended }).toEqual({ got: got.map(() => publishers * messages), ended: [] })
  })
})
