import { connect } from 'node:net'
import { Writable } from 'node:stream'
import { generate, type Packet } from 'mqtt-packet'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { startTestGateway } from '../helpers/gateway.js'
import { eventually } from '../helpers/wait.js'

/** A line feed with a line as the program writes it, terminal sequences, overrides of the direction of text. */
const hostile = 'a\n[12:00:00.000] ERROR: forged\r\n\u001b[2J\u009b31m\u2028\u202e\u2066b'

/** The same without control characters, with which an MQTT packet is malformed. */
const inMqtt = hostile.replaceAll(/\p{Cc}/gu, ' ')

describe.each(['pretty', 'json'] as const)('the log as %s', format => {
  it('has one printable line for each call, whatever somebody puts into topics, names and headers', async () => {
    let written = ''
    const destination = new Writable({
      write: (chunk, _encoding, done) => {
        written += chunk
        done()
      },
    })
    const rules = [{ to: 'anonymous' as const, publish: ['x'], subscribe: ['x'] }]
    const gateway = await startTestGateway(
      { access: { rules }, https: { port: 'off' } },
      createLog({ level: 'trace', format }, destination),
    )
    onTestFinished(() => gateway.close())
    const socket = connect({ port: gateway.mqttPort, host: '127.0.0.1', localAddress: '127.0.0.4' })
    const send = (packet: Packet) => socket.write(generate(packet))
    send({ cmd: 'connect', clientId: inMqtt, clean: true, keepalive: 60 })
    send({ cmd: 'publish', topic: inMqtt, payload: 'x', qos: 0, dup: false, retain: false })
    send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: inMqtt, qos: 0 }] })
    const topic = encodeURIComponent(hostile)
    const headers = { authorization: `Basic ${Buffer.from(`${hostile}:x`).toString('base64')}` }
    for (const each of [topic, encodeURIComponent(inMqtt)]) {
      await fetch(new URL(`/v1/events?topic=${each}`, gateway.urls.http))
    }
    await fetch(new URL(`/v1/events?topic=x&${topic}=1`, gateway.urls.http), { headers })
    await fetch(new URL(`/${topic}?${topic}`, gateway.urls.http), { headers: { 'user-agent': 'a\u009bb' } })
    const body = JSON.stringify({ topic: hostile, payload: 'x' })
    const json = { 'content-type': 'application/json' }
    await fetch(new URL('/v1/publish', gateway.urls.http), { method: 'POST', headers: json, body })
    await eventually(() => written.includes('a subscription was refused'))
    socket.destroy()
    await gateway.close()

    expect(written).toContain('This topic is not open to you')
    for (const line of written.trimEnd().split('\n')) {
      expect(line).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
      if (format === 'json') JSON.parse(line)
      else expect(line).toMatch(/^\[\d\d:\d\d:\d\d\.\d{3}\] [A-Z]+: (?!forged)/)
    }
  })
})
