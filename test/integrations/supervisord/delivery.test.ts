import { connect } from 'node:net'
import { Writable } from 'node:stream'
import { expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../../src/base/log.js'
import { Delivery } from '../../../src/integrations/supervisord/delivery.js'
import { Connection } from '../../../src/mqtt/connection.js'
import { mqtt5, type ProtocolProfile, plain } from '../../../src/mqtt/protocol-profile.js'
import { startMosquitto } from '../../helpers/mosquitto.js'
import { describeWith } from '../../helpers/requires.js'
import { eventually } from '../../helpers/wait.js'

/** Deliveries to a mosquitto with these lines of configuration. */
async function started(config: readonly string[], dialect: ProtocolProfile = mqtt5) {
  const { port, stop } = await startMosquitto(undefined, ['allow_anonymous true', ...config])
  onTestFinished(stop)
  let logged = ''
  const log = createLog(
    { level: 'info', format: 'json' },
    new Writable({
      write: (chunk, _encoding, done) => {
        logged += chunk
        done()
      },
    }),
  )
  const own = { clientId: 'states', clean: true, keepAlive: 30, connectTimeout: 5000 }
  const delivery = new Delivery({
    connect: () => Connection.connect({ stream: connect(port, '127.0.0.1'), profile: dialect, ...own }),
    onConnected: () => {},
    timeout: 20_000,
    log,
  })
  onTestFinished(() => delivery.close())
  return { delivery, logged: () => logged }
}

const message = { topic: 'supervisor/a/a/EXITED', payload: Buffer.from('{}'), qos: 1, retain: true } as const

describeWith(['mosquitto'], 'a delivery', () => {
  it.each([mqtt5, plain])('is one when the broker has acknowledged it ($name)', async dialect => {
    const { delivery } = await started([], dialect)
    expect(await delivery.deliver(() => [message, { ...message, topic: 'supervisor/a/a/FATAL' }])).toBe(true)
  })

  it.each([
    ['retain_available false', 'the broker keeps no retained messages'],
    ['max_qos 0', 'the broker takes QoS 0 alone'],
    ['max_packet_size 20', 'the broker accepts packets of 20 bytes'],
  ])('is none where the broker has %s, and the log says so', async (line, reason) => {
    const { delivery, logged } = await started([line])
    const delivered = delivery.deliver(() => [message])
    await eventually(() => logged().includes(reason))
    await delivery.close()
    expect(await delivered).toBe(false)
  })
})
