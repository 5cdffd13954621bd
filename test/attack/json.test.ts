import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AttackedGateway, startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { jsonBodies, jsonMessages, longQueries } from './scenarios/json-floods.js'
import type { AttackTarget } from './scenarios/scenario.js'
import { boundSince } from './scheduling.js'

describe('what takes long to read', () => {
  let gateway: AttackedGateway
  beforeAll(async () => {
    gateway = await startAttackedGateway({ data: 'none' })
  })
  afterAll(() => gateway?.close())

  it.each([jsonBodies, jsonMessages, longQueries])('($name) holds up nobody else', async ({ run }) => {
    const { mqttPort, http, https } = gateway
    const target: AttackTarget = { mqttPort, http, https, address: '127.0.0.4' }
    const bystander = await startBystander({ mqttPort, httpUrl: http })
    const began = await gateway.scheduling()
    const attack = new AbortController()
    const attacked = run(target, attack.signal)
    await bystander.rounds(30)
    const report = await bystander.stop()
    attack.abort()
    expect(await attacked).toBeGreaterThan(0)
    expectUndisturbed(report, await boundSince(gateway, began))
  })

  it('is refused in a few hundred bytes', async () => {
    const members = (count: number): string =>
      `{"topic":"a",${Array.from({ length: count }, (_, index) => `"${index}${'x'.repeat(40)}":0`).join()}}`
    for (const count of [3, 15_000, 20_000]) {
      const response = await fetch(new URL('/v1/publish', gateway.http), { method: 'POST', body: members(count) })
      const text = await response.text()
      expect([response.status, text.length < 500, text]).toEqual([400, true, expect.stringContaining('"detail"')])
    }
  })
})
