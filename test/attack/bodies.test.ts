import { describe, expect, it, onTestFinished } from 'vitest'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { slowBodies } from './scenarios/http-requests.js'
import { tinyChunks } from './scenarios/json-floods.js'
import type { AttackTarget, Scenario } from './scenarios/scenario.js'
import { unfinishedMessages } from './scenarios/web-sockets.js'
import { boundSince } from './scheduling.js'

describe('bodies that one address never ends', () => {
  it.each([unfinishedMessages, slowBodies])('($name) take no room of anybody else', async ({ run }: Scenario) => {
    const gateway = await startAttackedGateway({ data: 'none' })
    onTestFinished(() => gateway.close())
    const { mqttPort, http, https } = gateway
    const target: AttackTarget = { mqttPort, http, https, address: '127.0.0.4' }
    const attack = new AbortController()
    const attacked = run(target, attack.signal)
    const refusals = (): number =>
      gateway.log.filter(({ reason }) => String(reason).startsWith('bodies-too-many')).length
    await expect.poll(refusals, { timeout: 10_000 }).toBeGreaterThan(10)
    const began = await gateway.scheduling()
    const bystander = await startBystander({ mqttPort, httpUrl: http })
    await bystander.rounds(30)
    const held = (): Promise<number> => gateway.metric('mqway_body_bytes')
    expect(await held()).toBeGreaterThan(25 * 2 ** 20)
    expect(await held()).toBeLessThan(36 * 2 ** 20)
    const report = await bystander.stop()
    attack.abort()
    await attacked
    expectUndisturbed(report, await boundSince(gateway, began))
    await expect.poll(held, { timeout: 5000 }).toBe(0)
  })
})

it('(tiny-chunks) take no more memory than they are long', async () => {
  const gateway = await startAttackedGateway({ data: 'none' })
  onTestFinished(() => gateway.close())
  const { mqttPort, http, https } = gateway
  const began = await gateway.scheduling()
  const bystander = await startBystander({ mqttPort, httpUrl: http })
  const attack = new AbortController()
  const attacked = tinyChunks.run({ mqttPort, http, https, address: '127.0.0.4' }, attack.signal)
  await bystander.rounds(30)
  const report = await bystander.stop()
  attack.abort()
  await attacked
  expectUndisturbed(report, await boundSince(gateway, began))
  expect(await gateway.memory()).toBeLessThan(400 * 2 ** 20)
})
