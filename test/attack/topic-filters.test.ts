import { once } from 'node:events'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createLog } from '../../src/base/log.js'
import { createEmbedded } from '../../src/broker/embedded/embedded.js'
import { limits } from '../broker/embedded/limits.js'
import { startAttackedGateway } from '../helpers/attacked-gateway.js'
import { either, openMqtt, packet, publishPacket, send, subscribePacket } from './scenarios/attacker.js'

const levels = 32

/** Filters that have nothing in common but how many levels they have. */
function deepFilters(client: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${client}/${index}/${'a/'.repeat(levels - 3)}${index}`)
}

/** Bytes of heap that one of five clients with a thousand such filters takes, garbage included. */
async function heapOfOne(clean: boolean): Promise<number> {
  const gateway = await startAttackedGateway({ push: 'off', embedded: { maxAnonymousSessions: 100 } })
  onTestFinished(() => gateway.close())
  const { signal } = new AbortController()
  const target = { mqttPort: gateway.mqttPort, http: gateway.http, https: '', address: '127.0.0.4' }
  const heap = () => gateway.metric('nodejs_heap_size_used_bytes')
  const before = await heap()
  for (let client = 0; client < 5; client++) {
    const socket = await openMqtt(target, signal, { clientId: `deep-${client}`, clean })
    await send(socket, subscribePacket(deepFilters(client, 1000), 1, 1), signal)
    await either(socket, ['data', 'close'], signal)
    if (clean) onTestFinished(() => void socket.destroy())
    else socket.destroy()
  }
  return ((await heap()) - before) / 5
}

describe('topic filters', () => {
  it.each([
    ['connected clients', true],
    ['sessions', false],
  ])('of many levels take little memory: those of %s', async (_, clean) => {
    // With what the collector has not come to yet: it took 16 to 24 MiB without the common index.
    expect(await heapOfOne(clean)).toBeLessThan(10 * 2 ** 20)
  })

  it('that all match one topic stop the others only for slices', async () => {
    const { broker, connect } = await startBroker()
    const names = Array.from({ length: 2 ** 14 }, (_, bits) =>
      Array.from({ length: 14 }, (_, level) => ((bits >> level) & 1 ? '+' : 'a')).join('/'),
    )
    const subscribers = await Promise.all(Array.from({ length: 17 }, (_, client) => connect(`subscriber-${client}`)))
    for (const [client, subscriber] of subscribers.entries()) {
      subscriber.send(subscribePacket(names.slice(client * 964, (client + 1) * 964)))
      await subscriber.received(964)
    }
    const publisher = await connect('publisher')
    const bystander = await connect('bystander', '127.0.0.2')
    const message = publishPacket(Array(14).fill('a').join('/'), 'x')
    const before = subscribers.map(({ bytes }) => bytes())
    publisher.send(Buffer.concat(Array<Buffer>(100).fill(message)))
    const all = Promise.all(
      subscribers.map(({ received }, client) => received(100 * message.length + (before[client] ?? 0))),
    )
    // Each of them once for each client, of whose filters a thousand match.
    expect(await longestRoundTrip(bystander, all)).toBeLessThan(250)
    expect(subscribers.map(({ bytes }, client) => bytes() - (before[client] ?? 0))).toEqual(
      Array(17).fill(100 * message.length),
    )
    await broker.close()
  })

  it('in twenty SUBSCRIBEs of 118 KB stop the others only for one of them', async () => {
    const { broker, connect } = await startBroker()
    const clients = await Promise.all(Array.from({ length: 20 }, (_, client) => connect(`client-${client}`)))
    const bystander = await connect('bystander', '127.0.0.2')
    const characters = Array.from({ length: 25_000 }, (_, index) => String.fromCharCode(0x30 + index))
    const filters = characters.filter(text => !/[+#/\p{C}]/u.test(text)).slice(0, 20_000)
    for (const { send } of clients) send(subscribePacket(filters))
    expect(
      await longestRoundTrip(bystander, Promise.all(clients.map(({ received }) => received(20_000)))),
    ).toBeLessThan(250)
    await broker.close()
  })
})

/** A broker in this process, and connections to it. */
async function startBroker() {
  const broker = await createEmbedded({ data: 'none', ...limits }, createLog({ level: 'silent', format: 'json' }))
  const connect = async (clientId: string, address = '127.0.0.4') => {
    const stream = await broker.open({ address, port: 1, localAddress: '127.0.0.1', localPort: 2 })
    let bytes = 0
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length
    })
    const received = async (count: number): Promise<void> => {
      while (bytes < count) await once(stream, 'data')
    }
    const send = (packets: Buffer): boolean => stream.write(packets)
    send(packet({ cmd: 'connect', clientId, clean: true, protocolId: 'MQTT', protocolVersion: 4, keepalive: 0 }))
    await received(4)
    return { send, received, bytes: () => bytes }
  }
  return { broker, connect }
}

/** The longest round trip of a PINGREQ until `end`, in milliseconds of this process's own time: other processes do not count. */
async function longestRoundTrip(
  { send, received, bytes }: Awaited<ReturnType<Awaited<ReturnType<typeof startBroker>>['connect']>>,
  end: Promise<unknown>,
): Promise<number> {
  let [longest, running] = [0, true]
  end.finally(() => {
    running = false
  })
  while (running) {
    const before = process.cpuUsage()
    const answer = received(bytes() + 2)
    send(packet({ cmd: 'pingreq' }))
    await answer
    const { user, system } = process.cpuUsage(before)
    longest = Math.max(longest, (user + system) / 1000)
  }
  return longest
}
