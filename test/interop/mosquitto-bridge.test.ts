import { connectAsync } from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { startTestGateway } from '../helpers/gateway.js'
import { startMosquitto } from '../helpers/mosquitto.js'
import { describeWith } from '../helpers/requires.js'

describeWith('mosquitto', 'a bridge of mosquitto with default settings', () => {
  it('stays connected, and passes messages on in both directions', async () => {
    const gateway = await startTestGateway({ https: { port: 'off' } })
    onTestFinished(() => gateway.close())
    const connections: unknown[] = []
    const near = await connectAsync(gateway.urls.mqtt, { reconnectPeriod: 0 })
    const bridge = ['connection mqway', `address 127.0.0.1:${gateway.mqttPort}`, 'topic # both 1', 'restart_timeout 1']
    const mosquitto = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous true', ...bridge])
    onTestFinished(() => mosquitto.stop())
    const far = await connectAsync(`mqtt://127.0.0.1:${mosquitto.port}`, { reconnectPeriod: 0 })
    far.on('message', (topic, payload) => {
      if (topic.startsWith('$SYS')) connections.push(payload.toString())
    })
    const arrives = (client: typeof near, text: string): Promise<void> =>
      new Promise(resolve => {
        client.on('message', (_topic, payload) => {
          if (payload.toString() === text) resolve()
        })
      })
    await far.subscribeAsync(['$SYS/broker/connection/#', 'to/far'])
    await near.subscribeAsync('to/near')
    const [atFar, atNear] = [arrives(far, 'far'), arrives(near, 'near')]
    // The bridge may not be there yet.
    const timer = setInterval(() => {
      near.publish('to/far', 'far', { qos: 1 })
      far.publish('to/near', 'near', { qos: 1 })
    }, 100)
    await Promise.all([atFar, atNear])
    clearInterval(timer)
    await new Promise(resolve => setTimeout(resolve, 1500))
    expect(connections.slice(-1)).toEqual(['1'])
    expect(connections.filter(state => state === '0').length).toBeLessThanOrEqual(1)
    await Promise.all([near.endAsync(true), far.endAsync(true)])
  })
})
