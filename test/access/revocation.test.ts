import { readFile, writeFile } from 'node:fs/promises'
import bcrypt from 'bcrypt'
import mqtt, { type MqttClient } from 'mqtt'
import { expect, it, onTestFinished } from 'vitest'
import { startTestGateway, type TestGateway } from '../helpers/gateway.js'
import { closeOf, handshake, mqttThrough } from '../helpers/handshake.js'
import { People } from '../helpers/people.js'
import { describeWith } from '../helpers/requires.js'

const login = { Authorization: `Basic ${Buffer.from('alice:right').toString('base64')}` }
const expired = { code: 1008, reason: 'Credentials expired: the password is another one now, or none' }

async function start(): Promise<{ people: People; gateway: TestGateway; url: string }> {
  const people = await People.start()
  onTestFinished(() => people.stop())
  const gateway = await startTestGateway({ access: people.access })
  onTestFinished(() => gateway.close())
  return { people, gateway, url: `${gateway.urls.http.replace('http', 'ws')}/mqtt` }
}

const closed = (client: MqttClient): Promise<void> => new Promise(resolve => client.once('close', () => resolve()))

async function ticketOf({ urls }: TestGateway): Promise<string> {
  const response = await fetch(`${urls.http}/v1/tickets`, { method: 'POST', headers: login })
  return JSON.parse(await response.text()).ticket
}

describeWith('openssl', 'a password that changes in the file', () => {
  it.each([
    ['is another one', `alice:${bcrypt.hashSync('new', 4)}\n`],
    ['is gone', '# nobody\n'],
  ])('ends the connections that were made with it when it %s, on every way in', async (_how, content) => {
    const { people, gateway, url } = await start()
    const unused = await ticketOf(gateway)
    const known = { username: 'alice', password: 'right', reconnectPeriod: 0 }
    const plain = await mqtt.connectAsync(gateway.urls.mqtt, known)
    const inConnect = await mqttThrough(url, {}, known)
    onTestFinished(() => void plain.end(true))
    const withHeader = await handshake(url, { headers: login })
    const withTicket = await handshake(url, { query: `?ticket=${await ticketOf(gateway)}` })
    expect([withHeader.status, withTicket.status]).toEqual([101, 101])
    const others = [
      await mqttThrough(url, { headers: { Authorization: `Bearer ${await people.token()}` } }),
      await mqttThrough(url, {}, { username: 'carol', password: 'hook' }),
    ]

    await writeFile(people.file('users'), content)
    const ends = [closed(plain), closed(inConnect)]
    const closes = [closeOf(withHeader.client), closeOf(withTicket.client)]
    await gateway.gateway.reload()
    expect(await Promise.all(closes)).toEqual([expired, expired])
    await Promise.all(ends)

    // Whoever came with something else is still there, and what was not used yet is void.
    for (const client of others) expect(await client.subscribeAsync('a')).toHaveLength(1)
    expect(await handshake(url, { query: `?ticket=${unused}` })).toMatchObject({ status: 401 })
    expect(await handshake(url, { headers: login })).toMatchObject({ status: 401 })
  })

  it('ends nothing where it stays as it is and others change', async () => {
    const { people, gateway, url } = await start()
    const client = await mqttThrough(url, { headers: login })
    const before = await readFile(people.file('users'), 'utf8')
    await writeFile(people.file('users'), `bob:${bcrypt.hashSync('x', 4)}\n${before}`)
    await gateway.gateway.reload()
    expect(await client.subscribeAsync('a')).toHaveLength(1)
    expect((await handshake(url, { headers: login })).status).toBe(101)
  })
})
