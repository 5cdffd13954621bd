import { describe, expect, it, onTestFinished } from 'vitest'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { ask } from './scenarios/attacker.js'
import { idleSockets } from './scenarios/neighbours.js'
import { boundSince } from './scheduling.js'

describe('sockets on which nothing is sent', () => {
  it('leave descriptors for everybody else, though two addresses open as many as they can', async () => {
    const gateway = await startAttackedGateway({ data: 'none' }, { descriptors: 1024 })
    onTestFinished(() => gateway.close())
    const target = { mqttPort: gateway.mqttPort, http: gateway.http, https: '' }
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    const end = new AbortController()
    const began = await gateway.scheduling()
    const attacks = ['127.0.0.4', '127.0.0.5'].map(address => idleSockets.run({ ...target, address }, end.signal))
    await bystander.rounds(40)
    expect(await gateway.descriptors()).toBeLessThan(1024 - 100)
    const other = { ...target, address: '127.0.0.6' }
    expect(await ask(other, AbortSignal.timeout(15_000), 'GET', '/vendor/paho-mqtt.js')).toBe(200)
    end.abort()
    await Promise.all(attacks)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
  })
})
