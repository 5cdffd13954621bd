import { once } from 'node:events'
import { connect } from 'node:net'
import { openMqtt, packet, publishPacket, repeat, send, subscribePacket } from './attacker.js'
import type { AttackTarget, Scenario } from './scenario.js'

/** Connections of an attacker that are open at a time. */
const atOnce = 50

/** Bytes of a CONNACK and a SUBACK of one filter. */
const answers = 9

/** Makes sessions that are subscribed to `filter` at QoS 1, and whose clients are gone. Resolves when all of them are. */
export async function leaveSessions(
  { mqttPort: port, address: localAddress, username, password }: AttackTarget,
  filter: string,
  count: number,
): Promise<void> {
  let next = 0
  const leave = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) {
      const socket = connect({ port, host: '127.0.0.1', localAddress, noDelay: true })
      socket.on('error', () => {})
      const login = username === undefined ? {} : { username, password: Buffer.from(password ?? '') }
      const options = { protocolId: 'MQTT', protocolVersion: 4, keepalive: 60, clean: false, ...login } as const
      socket.write(packet({ cmd: 'connect', clientId: `absent-${localAddress}-${index}`, ...options }))
      socket.write(subscribePacket([filter], 1, 1))
      let received = 0
      socket.on('data', (chunk: Buffer) => {
        received += chunk.length
        if (received >= answers) socket.destroy()
      })
      await once(socket, 'close').catch(() => {})
    }
  }
  await Promise.all(Array.from({ length: atOnce }, leave))
}

/** Each ten milliseconds a message that all of the sessions match. */
export const messagesForAbsentSessions: Scenario = {
  name: 'messages-for-absent-sessions',
  run: async (target, signal) => {
    await leaveSessions(target, 'absent/#', 1000)
    const publisher = await openMqtt(target, signal)
    const sent = await repeat(signal, 10, async () => {
      await send(publisher, publishPacket('absent/x', 'x', { qos: 1 }), signal)
      return 1
    })
    publisher.destroy()
    return sent
  },
}
