import { readFileSync, writeFileSync } from 'node:fs'
import type { MqttClient } from 'mqtt'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { parse } from 'yaml'
import type { ConfigInput } from '../src/config/schema.js'
import { startTestGateway, type TestGateway } from './helpers/gateway.js'
import { handshake, mqttThrough } from './helpers/handshake.js'
import { startMosquitto } from './helpers/mosquitto.js'
import { nextMessage } from './helpers/mqtt-messages.js'
import { People } from './helpers/people.js'
import { describeWith } from './helpers/requires.js'

let people: People
beforeAll(async () => {
  people = await People.start()
})
afterAll(() => people.stop())

const access = readFileSync(new URL('../docs/access.md', import.meta.url), 'utf8')

/** The configuration below a heading of docs/access.md, with the addresses and the files of this test. */
async function startRecipe(heading: string, own: ConfigInput = {}): Promise<TestGateway> {
  const [, text] = new RegExp(`\n### ${heading}\n[^]*?\`\`\`yaml\n([^]*?)\`\`\``).exec(access) ?? []
  const { host, https, http, mqtt, ...recipe } = parse(text ?? '')
  expect([host, https.port, http.port]).toEqual(['0.0.0.0', 443, 'off'])
  const gateway = await startTestGateway({
    ...recipe,
    http,
    mqtt: mqtt.port === 'off' ? mqtt : {},
    ...own,
    access: { ...recipe.access, ...own.access },
  })
  onTestFinished(() => gateway.close())
  return gateway
}

const wss = (gateway: TestGateway): string => `${gateway.urls.https.replace('https', 'wss')}/mqtt`
const alice = { username: 'alice', password: 'right' }
const may = (client: MqttClient, filter: string): Promise<boolean> =>
  client.subscribeAsync(filter).then(
    () => true,
    () => false,
  )

describeWith(['openssl', 'mosquitto'], 'the recipe of docs/access.md', () => {
  it('“Public read, authenticated publish” lets everybody read, and only those with a password publish', async () => {
    const gateway = await startRecipe('Public read, authenticated publish', {
      access: { htpasswd: people.file('users') },
    })
    const reader = await mqttThrough(wss(gateway))
    const writer = await mqttThrough(wss(gateway), {}, alice)
    expect(await may(reader, 'news/#')).toBe(true)
    expect(await may(reader, '#')).toBe(false)
    const arrived = nextMessage(reader)
    await reader.publishAsync('news/europe', 'from nobody')
    await writer.publishAsync('news/europe', 'from alice', { qos: 1 })
    expect(String((await arrived).payload)).toBe('from alice')
    await expect(mqttThrough(wss(gateway), {}, { ...alice, password: 'wrong' })).rejects.toMatchObject({ code: 4 })
  })

  it('“Everybody has their own topics” keeps them apart, and nobody gets in without a name', async () => {
    const gateway = await startRecipe('Everybody has their own topics', { access: { htpasswd: people.file('users') } })
    const client = await mqttThrough(wss(gateway), {}, alice)
    expect(await may(client, 'home/alice/#')).toBe(true)
    for (const filter of ['home/bob/door', 'home/+/door', 'home/#', '#', '$SYS/#']) {
      expect([filter, await may(client, filter)]).toEqual([filter, false])
    }
    await expect(mqttThrough(wss(gateway))).rejects.toMatchObject({ code: 5 })
  })

  it('“Only my site’s pages” lets in pages of the site whose visitors are logged in, and nothing else', async () => {
    const mosquitto = await startMosquitto()
    onTestFinished(() => mosquitto.stop())
    const secretFile = people.file('token-secret')
    writeFileSync(secretFile, people.secret)
    const jwt = { cookie: 'session', secretFile }
    const broker = `mqtt://127.0.0.1:${mosquitto.port}`
    const gateway = await startRecipe("Only my site's pages", { access: { jwt }, broker })
    const Origin = 'https://www.example.org'
    const Cookie = `session=${await people.token({ aud: undefined })}`
    const client = await mqttThrough(wss(gateway), { headers: { Origin, Cookie } })
    expect(await may(client, '#')).toBe(true)
    for (const [headers, status] of [
      [{ Origin }, 401],
      [{ Cookie }, 403],
      [{ Cookie, Origin: 'https://evil.example' }, 403],
      [{ Cookie, Origin: gateway.urls.https }, 403],
      [{ Cookie: 'session=a.b.c', Origin }, 401],
    ] as const) {
      expect(await handshake(wss(gateway), { headers })).toMatchObject({ status })
    }
  })
})
