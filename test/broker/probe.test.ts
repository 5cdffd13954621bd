import { type Duplex, PassThrough } from 'node:stream'
import { afterEach, describe, expect, it } from 'vitest'
import { createLog } from '../../src/base/log.js'
import type { Broker } from '../../src/broker/broker.js'
import { createEmbedded } from '../../src/broker/embedded/embedded.js'
import { createStreamPair } from '../../src/broker/embedded/stream-pair.js'
import { probeBroker } from '../../src/broker/probe.js'
import { createUpstream } from '../../src/broker/upstream/upstream.js'
import { type Mosquitto, startMosquitto } from '../helpers/mosquitto.js'
import { describeWith } from '../helpers/requires.js'
import { limits } from './embedded/limits.js'

const log = createLog({ level: 'silent', format: 'json' })

/** A broker that does `answer` with what the probe sends. */
function brokerThat(answer: (stream: Duplex) => void): Broker & { stream: () => Duplex } {
  const pair = createStreamPair({ readableHighWaterMark: 1024, clientHighWaterMark: 1024, brokerHighWaterMark: 1024 })
  pair.broker.on('error', () => {})
  answer(pair.broker)
  return { name: 'test', open: async () => pair.client, close: async () => {}, stream: () => pair.client }
}

describe('the readiness probe', () => {
  it('makes a round-trip through the embedded broker', async () => {
    const broker = await createEmbedded({ data: 'none', ...limits, maxPacketSize: 1024 }, log)
    expect(await probeBroker(broker)).toBeGreaterThan(0)
    await broker.close()
    await expect(probeBroker(broker)).rejects.toMatchObject({ reason: 'shutting-down' })
  })

  it.each([
    ['closes', (stream: Duplex) => stream.once('data', () => stream.end()), /closed the connection without CONNACK/],
    ['is lost', (stream: Duplex) => stream.once('data', () => stream.destroy()), /closed the connection without/],
    ['refuses', (stream: Duplex) => stream.once('data', () => stream.write(Buffer.from([32, 2, 0, 3]))), /unavailable/],
    ['speaks HTTP', (stream: Duplex) => stream.once('data', () => stream.write('HTTP/1.1 400')), /does not speak MQTT/],
    ['is silent', (stream: Duplex) => stream.resume(), /did not answer within 100 ms/],
  ])('says that the broker %s, and leaves no stream', async (_, answer, message) => {
    const broker = brokerThat(answer)
    await expect(probeBroker(broker, { timeout: 100 })).rejects.toThrow(message)
    expect(broker.stream().destroyed).toBe(true)
  })

  it('is bounded while the broker does not even open, and destroys a stream that comes too late', async () => {
    const late = new PassThrough()
    let open = (_: Duplex): void => {}
    const broker = { name: 'late', open: () => new Promise<Duplex>(resolve => (open = resolve)), close: async () => {} }
    await expect(probeBroker(broker, { timeout: 50 })).rejects.toThrow(/within 50 ms/)
    open(late)
    await new Promise(resolve => late.once('close', resolve))
  })

  it('gives up when it is told to', async () => {
    const controller = new AbortController()
    const probing = probeBroker(
      brokerThat(stream => stream.resume()),
      { signal: controller.signal },
    )
    controller.abort(new Error('enough'))
    await expect(probing).rejects.toThrow('enough')
  })
})

describeWith(['mosquitto', 'mosquitto_passwd'], 'the readiness probe, on a mosquitto that asks who it is', () => {
  let mosquitto: Mosquitto
  afterEach(() => mosquitto.stop())

  it('takes a refusal for an answer without credentials, and not with wrong ones', async () => {
    mosquitto = await startMosquitto({ kind: 'tcp' }, ['allow_anonymous false'])
    const broker = createUpstream(
      { url: `mqtt://127.0.0.1:${mosquitto.port}`, balance: 'failover', connectTimeout: 2000, proxyProtocol: 'off' },
      log,
    )
    expect(await probeBroker(broker)).toBeGreaterThan(0)
    await expect(probeBroker(broker, { username: 'a', password: 'b' })).rejects.toThrow(/user name|authorize/)
    await mosquitto.kill()
    await expect(probeBroker(broker)).rejects.toMatchObject({ reason: 'broker-refused' })
    await broker.close()
  })
})
