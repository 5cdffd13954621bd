import { describe, expect, it, onTestFinished } from 'vitest'
import { type AttackedGateway, startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { eventually } from '../helpers/wait.js'
import { pipelineAndLeave, pipelinedRequests } from './scenarios/pipelined-requests.js'
import { boundSince } from './scheduling.js'

async function attacked(): Promise<AttackedGateway> {
  const gateway = await startAttackedGateway({ data: 'none' })
  onTestFinished(() => gateway.close())
  return gateway
}

describe('requests that are sent before the responses to those before them', () => {
  it('open a file each only when it is their turn, and leave no descriptor behind', async () => {
    const gateway = await attacked()
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    await bystander.rounds(2)
    const began = await gateway.scheduling()
    const before = await gateway.descriptors()
    const target = { ...gateway, address: '127.0.0.4' }
    const file = pipelinedRequests['file'] ?? ''
    await Promise.all(Array.from({ length: 14 }, () => pipelineAndLeave(target, file, 1500)))
    await eventually(async () => (await gateway.descriptors()) <= before + 5)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
    expect((await fetch(new URL('/healthz', gateway.http))).status).toBe(200)
  })

  it('leave nothing behind, whatever their responses hold', async () => {
    const gateway = await attacked()
    const target = { ...gateway, address: '127.0.0.4' }
    const before = await gateway.descriptors()
    const attacks = Object.entries(pipelinedRequests).map(([kind, request]) =>
      // A client that leaves behind more than 16 KiB is noticed when its poll is over.
      pipelineAndLeave(target, request, kind === 'poll' ? 200 : 1500),
    )
    await Promise.all(attacks)
    await eventually(async () => (await gateway.descriptors()) <= before + 5)
    await eventually(async () => (await gateway.metric('mqway_push_subscribers')) === 0)
  })
})
