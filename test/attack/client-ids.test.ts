import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { generate } from 'mqtt-packet'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocket } from 'ws'
import type { ConfigInput } from '../../src/config/schema.js'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { expectUndisturbed, startBystander } from '../helpers/bystander.js'
import { startMosquitto } from '../helpers/mosquitto.js'

const address = '127.0.0.4'

function connectPacket(clientId: string, protocolVersion: 4 | 5): Buffer {
  return generate({ cmd: 'connect', protocolVersion, clientId, clean: true, keepalive: 60 })
}

/** What the gateway's MQTT port answers to a CONNECT, until it closes the connection. */
async function overTcp(port: number, packet: Buffer): Promise<string> {
  const socket = connectTcp({ port, host: '127.0.0.1', localAddress: address })
  const chunks: Buffer[] = []
  socket.on('data', chunk => chunks.push(chunk)).on('error', () => {})
  socket.write(packet)
  await once(socket, 'end')
  socket.destroy()
  return Buffer.concat(chunks).toString('hex')
}

/** What the tunnel answers, and its close frame. */
async function overWebSocket(http: string, packet: Buffer): Promise<{ answer: string; code: number; reason: string }> {
  const url = new URL('/mqtt', http)
  url.protocol = 'ws:'
  const socket = new WebSocket(url, ['mqtt'], { localAddress: address })
  const chunks: Buffer[] = []
  socket.on('message', (chunk: Buffer) => chunks.push(chunk))
  await once(socket, 'open')
  socket.send(packet)
  const [code, reason] = await once(socket, 'close')
  return { answer: Buffer.concat(chunks).toString('hex'), code, reason: String(reason) }
}

/** The client ids that push has with the broker. */
async function idsOf(directory: string, configured: string | undefined): Promise<readonly string[]> {
  const file = join(directory, 'data/push-client-id.json')
  const id = configured ?? String(JSON.parse(await readFile(file, 'utf8')).clientId)
  return [id, `${id}-out`]
}

describe('the gateway’s own client ids', () => {
  it.each<[what: string, configured: string | undefined]>([
    ['a random one', undefined],
    ['one of the configuration', 'of-the-configuration'],
  ])('are refused to clients, and push stays connected: %s', async (_what, configured) => {
    const mosquitto = await startMosquitto({ kind: 'tcp' })
    onTestFinished(() => mosquitto.stop())
    const config: ConfigInput = { broker: `mqtt://127.0.0.1:${mosquitto.port}` }
    const push = { topics: ['#'], ...(configured !== undefined && { clientId: configured }) }
    const gateway = await startAttackedGateway({ ...config, push })
    onTestFinished(() => gateway.close())
    const bystander = await startBystander({ mqttPort: gateway.mqttPort, httpUrl: gateway.http })
    const ids = await idsOf(gateway.directory, configured)
    if (configured === undefined) expect(ids[0]).toMatch(/^mqway-[0-9a-zA-Z-]*-[0-9a-f]{20}$/)
    for (let round = 0; round < 3; round++) {
      for (const id of ids) {
        expect(await overTcp(gateway.mqttPort, connectPacket(id, 4))).toBe('20020002')
        expect(await overTcp(gateway.mqttPort, connectPacket(id, 5))).toBe('2003008500')
        const reason = 'This client id is the gateway’s own'
        expect(await overWebSocket(gateway.http, connectPacket(id, 4))).toEqual({
          answer: '20020002',
          code: 1008,
          reason,
        })
        expect(await overWebSocket(gateway.http, connectPacket(id, 5))).toEqual({
          answer: '2003008500',
          code: 1008,
          reason,
        })
      }
      await bystander.rounds(3)
    }
    // It takes no time from anybody: a push that is taken down would lose messages and answer 503.
    expectUndisturbed(await bystander.stop())
    expect(await gateway.metric('mqway_push_connected')).toBe(1)
    expect(gateway.log.filter(line => String(line['msg']).includes('push cannot connect'))).toEqual([])
  })
})
