import { Writable } from 'node:stream'
import type { Client } from 'aedes'
import mqtt from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import WebSocket from 'ws'
import type { GatewayError } from '../../../src/base/errors.js'
import { createLog } from '../../../src/base/log.js'
import { Takeovers } from '../../../src/broker/embedded/takeovers.js'
import { startTestGateway } from '../../helpers/gateway.js'
import { eventually } from '../../helpers/wait.js'
import { somePeer } from './mqtt-session.js'

const connectPacket = Buffer.concat([Buffer.from([0x10, 15]), Buffer.from('\0\x04MQTT\x04\x02\0\0\0\x03dup', 'latin1')])

describe('a client id that connects again', () => {
  it('ends the first connection with a close reason and a line of the log that say so', async () => {
    let written = ''
    const destination = new Writable({
      write(chunk, _encoding, done) {
        written += chunk
        done()
      },
    })
    const gateway = await startTestGateway({}, createLog({ level: 'info', format: 'json' }, destination))
    onTestFinished(() => gateway.close())
    const socket = new WebSocket(`${gateway.urls.http.replace('http', 'ws')}/mqtt`, ['mqtt'])
    onTestFinished(() => socket.terminate())
    const closed = new Promise<{ code: number; reason: string }>(resolve =>
      socket.once('close', (code, reason) => resolve({ code, reason: String(reason) })),
    )
    socket.once('open', () => socket.send(connectPacket))
    await new Promise(resolve => socket.once('message', resolve))
    const second = await mqtt.connectAsync(gateway.urls.mqtt, { clientId: 'dup', reconnectPeriod: 0 })
    onTestFinished(() => void second.end(true))
    const sentence = /^The same client id connected from another connection: 127\.0\.0\.1 port \d+$/
    expect(await closed).toEqual({ code: 1008, reason: expect.stringMatching(sentence) })
    const said = (): string | undefined => written.split('\n').find(line => line.includes('session-taken-over'))
    await eventually(() => said() !== undefined)
    expect(JSON.parse(said() ?? '')).toMatchObject({ level: 30, msg: expect.stringMatching(sentence) })
  })

  it('is warned of once where clients end each other’s connection again and again', async () => {
    const lines: unknown[][] = []
    const endings: GatewayError[] = []
    let now = 0
    const takeovers = new Takeovers({
      peerOf: () => somePeer,
      setCloseReason: (_client, ending) => endings.push(ending),
      log: { warn: (...line: unknown[]) => void lines.push(line) },
      now: () => now,
    })
    const client = (id: string): Client => Object.assign(Object.create(null), { id })
    const connected = new Map<string, Client>()
    const takeOver = (id: string): void => {
      const next = client(id)
      takeovers.accepted(next, connected.get(id))
      connected.set(id, next)
    }
    for (let times = 0; times <= 40; times++) takeOver('twins')
    expect(endings).toHaveLength(40)
    expect(lines).toEqual([
      [
        expect.objectContaining({ clientId: 'twins', takeovers: 5 }),
        expect.stringContaining('give each client an id of its own'),
      ],
    ])
    // A client that comes back once in a while before its old connection is known to be dead is none of them.
    for (let times = 0; times <= 10; times++) {
      now += 60_001
      takeOver('phone')
    }
    expect(lines).toHaveLength(1)
    now += 600_000
    for (let times = 0; times < 5; times++) takeOver('twins')
    expect(lines).toHaveLength(2)
  })

  it('counts a bounded number of client ids', () => {
    let explained = 0
    const takeovers = new Takeovers({
      peerOf: () => undefined,
      setCloseReason: () => void explained++,
      log: { warn: () => expect.unreachable() },
    })
    const client = (id: string): Client => Object.assign(Object.create(null), { id })
    // Five takeovers each, with so many others between that the first is forgotten.
    for (let round = 0; round < 5; round++) {
      for (let number = 0; number < 1500; number++) {
        takeovers.accepted(client(`id-${number}`), client(`id-${number}`))
      }
    }
    expect(explained).toBe(7500)
  })
})
