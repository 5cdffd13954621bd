import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type AttackedGateway, startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { storeSessions } from '../helpers/stored-sessions.js'
import { leaveSessions } from './scenarios/absent-sessions.js'
import { openMqtt, publishPacket, repeat, send } from './scenarios/attacker.js'
import type { AttackTarget } from './scenarios/scenario.js'

function targetOf({ mqttPort, http, https }: AttackedGateway): AttackTarget {
  return { mqttPort, http, https, address: '127.0.0.4' }
}

async function temporary(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-attack-'))
  onTestFinished(() => rm(directory, { recursive: true, force: true }))
  return directory
}

describe('sessions whose clients do not come back', () => {
  it('get a message each ten milliseconds, 20,000 of them, and stop nobody', async () => {
    const directory = await temporary()
    const record = `${Date.now()}@127.0.0.4`
    await storeSessions(join(directory, 'data'), { count: 20_000, prefix: 'absent', filters: ['absent/#'], record })
    const embedded = { maxSessions: 20_000, maxAnonymousSessions: 20_000 }
    const gateway = await startAttackedGateway({ embedded }, { directory })
    onTestFinished(() => gateway.close())
    const attack = new AbortController()
    const publisher = await openMqtt(targetOf(gateway), attack.signal)
    const attacked = repeat(attack.signal, 10, async () => {
      await send(publisher, publishPacket('absent/x', 'x', { qos: 1 }), attack.signal)
      return 1
    })
    const before = await gateway.scheduling()
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    await bystander.rounds(25)
    const report = await bystander.stop()
    attack.abort()
    await attacked
    publisher.destroy()
    const after = await gateway.scheduling()
    // The broker is busy all the time; on a busy machine it waits for a core besides.
    const run = after.run - before.run
    expectUndisturbed(report, (100 * (run + after.waited - before.waited)) / run)
    expect(await gateway.metric('mqway_sessions')).toBe(20_000)
    expect(await gateway.metric('mqway_session_bytes')).toBeGreaterThan(20_000 * 1200)
  }, 20_000)

  const deep = Array.from({ length: 1000 }, (_, index) =>
    ['%c', ...Array.from({ length: 31 }, (__, level) => `${index}.${level}`)].join('/'),
  )
  const few = { count: 40, prefix: 'deep', filters: deep }
  const many = { count: 20_000, prefix: 'absent', filters: ['absent/#'] }

  it.each([
    ['without a name', '', {}, 0],
    ['without a name, and some may stay', '@127.0.0.4', { maxSessions: 5000, maxAnonymousSessions: 5000 }, 5000],
  ])(
    '(%s) that an earlier version has stored keep no gateway of 512 MB from starting, and are named in the log',
    async (_, holder, embedded, kept) => {
      const directory = await temporary()
      const now = Date.now()
      const [before, last] = [`${now - 1000}${holder}`, `${now}${holder}`]
      await storeSessions(join(directory, 'data'), { ...many, record: before }, { ...few, record: last })
      const gateway = await startAttackedGateway({ embedded }, { directory })
      onTestFinished(() => gateway.close())
      expect(await gateway.metric('mqway_sessions')).toBe(kept)
      const removed = gateway.log.filter(({ msg }) => String(msg).startsWith('removed'))
      expect(removed).toEqual([expect.objectContaining({ sessions: 20_040 - kept, clientIds: expect.any(Array) })])
    },
  )

  it('are not there, where their clients have no name', async () => {
    const gateway = await startAttackedGateway()
    onTestFinished(() => gateway.close())
    await leaveSessions(targetOf(gateway), 'absent/#', 100)
    expect(await gateway.metric('mqway_sessions')).toBe(0)
    const told = gateway.log.filter(({ msg }) => String(msg).includes('embedded.maxAnonymousSessions'))
    expect(told).toEqual([expect.objectContaining({ network: '127.0.0.4' })])
  })
})
