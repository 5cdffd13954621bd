import { describe, expect, it, onTestFinished } from 'vitest'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'

describe('a bystander', () => {
  it('sees round trips of every kind at a gateway that nobody attacks', async () => {
    const gateway = await startAttackedGateway({ data: 'none' })
    onTestFinished(() => gateway.close())
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    await bystander.rounds(20)
    const report = await bystander.stop()
    expectUndisturbed(report)
    expect(Math.min(report.mqtt.sent, report.http.sent, report.push.sent)).toBeGreaterThanOrEqual(20)
  })
})
