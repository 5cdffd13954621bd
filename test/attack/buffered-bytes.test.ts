import { describe, expect, it, onTestFinished } from 'vitest'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { eventually } from '../helpers/wait.js'
import { unfinishedPackets } from './scenarios/neighbours.js'
import { boundSince } from './scheduling.js'

describe('MQTT packets of 4 MiB that are never completed', () => {
  it('hold no more than half of embedded.maxBufferedBytes for one address, and are refused beyond', async () => {
    const gateway = await startAttackedGateway({ data: 'none', embedded: { maxBufferedBytes: '64MiB' } })
    onTestFinished(() => gateway.close())
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    const before = await gateway.memory()
    const end = new AbortController()
    const began = await gateway.scheduling()
    const target = { mqttPort: gateway.mqttPort, http: gateway.http, https: '', address: '127.0.0.4' }
    const attack = unfinishedPackets.run(target, end.signal)
    await eventually(() => gateway.log.filter(({ reason }) => reason === 'packets-too-many-from-address').length >= 3)
    expect((await gateway.memory()) - before).toBeLessThan(200 * 2 ** 20)
    end.abort()
    await attack
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
  })
})
