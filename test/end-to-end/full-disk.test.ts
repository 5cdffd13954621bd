import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { type ServingProgram, serving } from '../helpers/program.js'
import { describeWith } from '../helpers/requires.js'
import { mountSmallDisk } from '../helpers/small-disk.js'
import { eventually } from '../helpers/wait.js'

const absent = { clientId: 'absent', clean: false, reconnectPeriod: 0 }

async function start(directory: string): Promise<ServingProgram> {
  const gateway = await serving(['--http-port', '0', '--https-port', 'off', '--mqtt-port', '0'], directory)
  gateway.child.stdout.resume()
  onTestFinished(() => gateway.stop('SIGKILL'))
  return gateway
}

describeWith('root', 'a gateway whose disk is full for a while', () => {
  it('refuses what it cannot keep, says so, continues, and has all that it acknowledged after kill -9', async () => {
    const disk = await mountSmallDisk(24)
    writeFileSync(join(disk.directory, 'mqway.yaml'), 'embedded: { maxAnonymousSessions: 10 }\n')
    let gateway = await start(disk.directory)
    const session = await mqtt.connectAsync(gateway.url('mqtt'), absent)
    await session.subscribeAsync('a', { qos: 1 })
    await session.endAsync()

    const acknowledged: string[] = []
    let publisher = await mqtt.connectAsync(gateway.url('mqtt'), { reconnectPeriod: 0 })
    const publishMqtt = async (payload: string): Promise<void> => {
      await publisher.publishAsync('a', payload.padEnd(30_000, '.'), { qos: 1, retain: true })
      acknowledged.push(payload)
    }
    const publishHttp = async (payload: string): Promise<number> => {
      const url = `${gateway.url('http')}/v1/publish?topic=a`
      const { status } = await fetch(url, { method: 'POST', body: payload.padEnd(30_000, '.') })
      if (status === 201) acknowledged.push(payload)
      return status
    }
    const readiness = async () => {
      const response = await fetch(`${gateway.url('http')}/readyz`)
      return [response.status, await response.text()] as const
    }
    await publishMqtt('MQTT before')
    expect(await publishHttp('HTTP before')).toBe(201)

    disk.fill()
    let isAcknowledged = false
    const closed = new Promise<void>(resolve => publisher.once('close', () => resolve()))
    publisher.publish('a', 'x'.repeat(30_000), { qos: 1 }, error => {
      isAcknowledged = error === undefined || error === null
    })
    await eventually(async () => (await readiness())[0] === 503)
    expect((await readiness())[1]).toContain('No space left')
    const statuses = await Promise.all([publishHttp('1'), publishHttp('2')])
    expect(statuses.every(status => status === 503 || status === 504)).toBe(true)
    await closed
    expect(isAcknowledged).toBe(false)

    disk.free()
    await eventually(async () => (await readiness())[0] === 200)
    publisher = await mqtt.connectAsync(gateway.url('mqtt'), { reconnectPeriod: 0 })
    await publishMqtt('MQTT after')
    expect(await publishHttp('HTTP after')).toBe(201)
    await gateway.stop('SIGKILL')
    publisher.end(true)

    gateway = await start(disk.directory)
    const received: string[] = []
    const client = mqtt.connect(gateway.url('mqtt'), absent)
    onTestFinished(() => void client.end(true))
    client.on('message', (_topic, payload) => received.push(String(payload).replace(/\.+$/, '')))
    await eventually(() => received.includes('HTTP after'))
    expect(acknowledged).toEqual(['MQTT before', 'HTTP before', 'MQTT after', 'HTTP after'])
    expect(received.filter(payload => acknowledged.includes(payload))).toEqual(acknowledged)
    await client.endAsync()
    await gateway.stop('SIGKILL')
  }, 60_000)
})
