import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { startTestGateway } from '../helpers/gateway.js'

describe('a message that a body may have, and a packet of the built-in broker may not', () => {
  it('is refused by the limit’s name, and nobody else notices', async () => {
    const gateway = await startTestGateway({ embedded: { maxPacketSize: '64KiB' }, limits: { bodySize: '1MiB' } })
    onTestFinished(() => gateway.close())
    const listener = await mqtt.connectAsync(gateway.urls.mqtt)
    onTestFinished(() => listener.endAsync(true))
    const sizes: number[] = []
    const seen = new Promise<void>(resolve => {
      listener.on('message', (_topic, payload) => {
        if (sizes.push(payload.length) === 3) resolve()
      })
    })
    await listener.subscribeAsync('news', { qos: 1 })
    const publish = async (size: number) => {
      const url = `${gateway.urls.http}/v1/publish?topic=news`
      const answer = await fetch(url, { method: 'POST', body: Buffer.alloc(size) })
      return { status: answer.status, body: await answer.json() }
    }
    const largest = 64 * 1024 - 'news'.length - 9
    const refused = {
      status: 413,
      body: {
        reason: 'body-too-large',
        detail: expect.stringContaining('packets of at most 65536 bytes (embedded.maxPacketSize)'),
      },
    }
    const answers = await Promise.all([1, largest + 1, largest, 1_000_000, 2].map(publish))
    const published = { status: 201 }
    expect(answers).toMatchObject([published, refused, published, refused, published])
    await seen
    expect(sizes.sort((a, b) => a - b)).toEqual([1, 2, largest])
  })
})
