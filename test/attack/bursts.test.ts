import { connect as connectTcp } from 'node:net'
import { MqttClient } from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { eventually } from '../helpers/wait.js'
import { boundSince } from './scheduling.js'

/** Bursts of some 2 MB and more: publishers, messages of each, bytes of a message. */
const bursts = [
  { publishers: 1, messages: 5, size: 700_000 },
  { publishers: 20, messages: 1, size: 100_000 },
  { publishers: 30, messages: 50, size: 1000 },
]

it.each(['none', 'data'])(
  'bursts arrive whole for a subscriber of QoS 1, and disturb nobody else (data: %s)',
  async data => {
    const gateway = await startAttackedGateway({ data })
    onTestFinished(() => gateway.close())
    const connect = async (localAddress: string): Promise<MqttClient> => {
      const at = { port: gateway.mqttPort, host: '127.0.0.1', localAddress }
      const client = new MqttClient(() => connectTcp(at), { reconnectPeriod: 0, protocolVersion: 4 })
      await new Promise(resolve => client.once('connect', resolve))
      onTestFinished(() => client.endAsync(true))
      return client
    }
    const subscriber = await connect('127.0.0.4')
    let [got, ended] = [0, false]
    subscriber.on('message', () => got++).on('close', () => (ended = true))
    await subscriber.subscribeAsync('burst/#', { qos: 1 })
    const senders = await Promise.all(Array.from({ length: 30 }, () => connect('127.0.0.5')))
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    await bystander.rounds(5)
    const began = await gateway.scheduling()
    await bystander.window()
    let sent = 0
    for (const { publishers, messages, size } of bursts) {
      const payload = Buffer.alloc(size, 'x')
      await Promise.all(
        senders
          .slice(0, publishers)
          .flatMap(sender =>
            Array.from({ length: messages }, () => sender.publishAsync('burst/x', payload, { qos: 1 })),
          ),
      )
      sent += publishers * messages
      await eventually(() => ended || got >= sent)
      expect({ publishers, got, ended }).toEqual({ publishers, got: sent, ended: false })
    }
    await bystander.rounds(20)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
  },
)
