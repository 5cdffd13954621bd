import { once } from 'node:events'
import { connect } from 'node:http2'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type AttackedGateway, startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { eventually } from '../helpers/wait.js'
import { flood, floodKinds, readNothing, resetRapidly } from './scenarios/http2.js'
import { flags, frame, get, getBlock, preface } from './scenarios/http2-frames.js'
import { answered, closed, openHttp2Socket } from './scenarios/sockets.js'
import { boundSince } from './scheduling.js'

async function attacked(limits = {}): Promise<AttackedGateway> {
  const gateway = await startAttackedGateway({ data: 'none', https: { port: 0 }, limits })
  onTestFinished(() => gateway.close())
  return gateway
}

const times = <T>(count: number, work: () => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, work))

describe('a client of HTTP/2', () => {
  it('that asks and cancels a thousand times in one write disturbs nobody', async () => {
    const gateway = await attacked()
    const target = { ...gateway, address: '127.0.0.4' }
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    await bystander.rounds(2)
    const began = await gateway.scheduling()
    for (let round = 0; round < 5; round++) await resetRapidly(target, 1000)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
    expect(await gateway.metric('mqway_push_subscribers')).toBe(0)
  })

  it('that sends nothing but cheap frames disturbs nobody', async () => {
    const gateway = await attacked()
    const target = { ...gateway, address: '127.0.0.4' }
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    await bystander.rounds(2)
    const began = await gateway.scheduling()
    for (const kind of floodKinds) await flood(target, kind)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
  })

  it('that cancels many requests is disconnected', async () => {
    const gateway = await attacked()
    const session = connect(gateway.https, { rejectUnauthorized: false })
    onTestFinished(() => session.destroy())
    session.on('error', () => {})
    const goaway = once(session, 'goaway')
    const cancel = async (): Promise<void> => {
      const stream = session.request({ ':path': '/v1/events?topic=a' })
      stream.on('error', () => {})
      await once(stream, 'response')
      stream.close(8)
      await once(stream, 'close')
    }
    void (async () => {
      while (!session.closed && !session.destroyed) await cancel()
    })().catch(() => {})
    const [code] = await goaway
    expect(code).toBe(11)
    expect(await gateway.metric('mqway_refusals_total{reason="too-many-cancelled"}')).toBe(1)
  })

  it('that takes no byte of a hundred files on each of many connections leaves descriptors to others', async () => {
    const gateway = await attacked()
    const target = { ...gateway, address: '127.0.0.4' }
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    await bystander.rounds(2)
    const began = await gateway.scheduling()
    const before = await gateway.descriptors()
    const attack = times(5, () => readNothing(target, 1000))
    await eventually(async () => (await gateway.metric('mqway_refusals_total{reason="files-too-many"}')) > 0)
    // With the bystander's own connections, 64 at most.
    expect(await gateway.descriptors()).toBeLessThan(before + 5 + 128 + 64 + 10)
    const file = await fetch(new URL('/vendor/paho-mqtt.js', gateway.http))
    expect([file.status, (await file.text()).length]).toEqual([200, expect.any(Number)])
    await attack
    await eventually(async () => (await gateway.descriptors()) <= before + 5)
    expectUndisturbed(await bystander.stop(), await boundSince(gateway, began))
  })

  it('that leaves at once leaves no descriptor behind', async () => {
    const gateway = await attacked()
    const before = await gateway.descriptors()
    const requests = Array.from({ length: 90 }, (_, index) => get(2 * index + 1, `/v1/events?topic=unread/${index}`))
    const leave = async (): Promise<void> => {
      const socket = await openHttp2Socket(gateway.https, '127.0.0.4')
      socket.write(Buffer.concat([preface(), ...requests]))
      await closed(socket)
    }
    await times(20, leave)
    await eventually(async () => (await gateway.descriptors()) <= before + 2)
  })

  it('that sends no request, half a header block or half a frame is disconnected after limits.handshakeTimeout', async () => {
    const gateway = await attacked({ handshakeTimeout: '300ms' })
    const unfinished = [
      Buffer.alloc(0),
      frame('headers', flags.endStream, 1, getBlock('/')),
      frame('headers', flags.endStream | flags.endHeaders, 1, getBlock('/')).subarray(0, 12),
    ]
    for (const [index, bytes] of unfinished.entries()) {
      const socket = await openHttp2Socket(gateway.https, '127.0.0.4')
      socket.write(Buffer.concat([preface(), bytes]))
      await answered(socket)
      await once(socket.resume(), 'close')
      expect(await gateway.metric('mqway_refusals_total{reason="handshake-timeout"}')).toBe(index + 1)
    }
  })
})
