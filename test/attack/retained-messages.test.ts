import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { openLevel } from '../../src/broker/embedded/level-backend.js'
import { type AttackedGateway, startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { silentLog } from '../helpers/silent-log.js'
import { openMqtt, publishPacket, send, subscribePacket } from './scenarios/attacker.js'
import { scan, storeMany, subscribeOften } from './scenarios/retained-subscribers.js'
import type { AttackTarget } from './scenarios/scenario.js'
import { boundSince } from './scheduling.js'

function targetOf({ mqttPort, http, https }: AttackedGateway, address: string): AttackTarget {
  return { mqttPort, http, https, address }
}

const never = new AbortController().signal
const mebibyte = 2 ** 20

/** Resolves when a metric has a value. It is asked for now and then: to answer takes the gateway longer than what is measured here. */
async function reaches(gateway: AttackedGateway, metric: string, value: number): Promise<void> {
  while ((await gateway.metric(metric)) !== value) await delay(50)
}

/** A gateway that has so many retained messages on disk. */
async function startWithStored(count: number): Promise<AttackedGateway> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-attack-'))
  const { retained, close } = await openLevel(join(directory, 'data'), silentLog)
  const message = { cmd: 'publish', qos: 0, retain: true, dup: false, brokerId: 'mqway-0000000001' } as const
  await Promise.all(
    Array.from({ length: count }, (_, index) =>
      retained.put({ ...message, brokerCounter: index, topic: `retained/x/${index}`, payload: Buffer.from('x') }),
    ),
  )
  await close()
  return startAttackedGateway({ data: 'data' }, { directory })
}

/** A gateway that has so many retained messages in memory. */
async function startWithPublished(count: number): Promise<AttackedGateway> {
  const gateway = await startAttackedGateway({ data: 'none' })
  await Promise.all(['127.0.0.4', '127.0.0.5'].map(address => storeMany(targetOf(gateway, address), never, count / 2)))
  // Those of QoS 0 are published one after the other, and pass through push as well.
  await reaches(gateway, 'mqway_retained_messages', count)
  return gateway
}

describe.each([
  ['on disk', startWithStored],
  ['in memory', startWithPublished],
])('a SUBSCRIBE with many retained messages %s', (_, start) => {
  it('costs what it matches, and nothing when its client is gone', async () => {
    const gateway = await start(20_000)
    onTestFinished(() => gateway.close())
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    const began = await gateway.scheduling()
    await bystander.rounds(5)
    await bystander.window()
    const cpu = () => gateway.metric('process_cpu_seconds_total')
    const before = await cpu()
    const signal = AbortSignal.timeout(1000)
    const [scans, subscribes] = await Promise.all([
      scan(targetOf(gateway, '127.0.0.6'), signal),
      subscribeOften(targetOf(gateway, '127.0.0.7'), signal),
    ])
    // 300 scans for 300 SUBSCRIBEs would be those of 20,000 topics: some 5 s.
    expect(((await cpu()) - before) / (scans + subscribes / 300)).toBeLessThan(0.5)
    await reaches(gateway, 'mqway_retained_scans', 0)
    const after = await cpu()
    await bystander.rounds(20)
    expect((await cpu()) - after).toBeLessThan(0.5)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
  })
})

describe.each(['none', 'data'])('big retained messages (data: %s)', data => {
  it('take no more than their bound in bytes, of which one publisher gets half; clients that do not read them disturb nobody', async () => {
    const bound = '10MiB'
    const gateway = await startAttackedGateway({ data, embedded: { maxRetainedBytes: bound } })
    onTestFinished(() => gateway.close())
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    const began = await gateway.scheduling()
    const payload = Buffer.alloc(2 * mebibyte)
    const publish = async (address: string): Promise<void> => {
      const socket = await openMqtt(targetOf(gateway, address), never)
      for (let i = 0; i < 4; i++)
        await send(socket, publishPacket(`big/${address}/${i}`, payload, { retain: true }), never)
    }
    await publish('127.0.0.4')
    await reaches(gateway, 'mqway_retained_refused_total', 2)
    await publish('127.0.0.5')
    await reaches(gateway, 'mqway_retained_refused_total', 5)
    expect(await gateway.metric('mqway_retained_messages')).toBe(3)
    expect(await gateway.metric('mqway_retained_bytes')).toBe(3 * (payload.length + 64))
    const before = await gateway.memory()
    const deaf = await Promise.all(
      Array.from({ length: 100 }, async () => {
        const socket = await openMqtt(targetOf(gateway, '127.0.0.6'), never, { deaf: true })
        // The second one comes when the first has been read, and so never.
        await send(socket, subscribePacket(['big/#']), never)
        return socket
      }),
    )
    await bystander.rounds(20)
    expect((await gateway.memory()) - before).toBeLessThan(300 * mebibyte)
    for (const socket of deaf) socket.destroy()
    await reaches(gateway, 'mqway_retained_scans', 0)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
  })
})
