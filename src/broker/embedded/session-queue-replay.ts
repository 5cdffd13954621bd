import { setImmediate as turn } from 'node:timers/promises'
import type { AedesPublishPacket, Client } from 'aedes'
import { firstAcknowledgement, type PacketIds } from './packet-ids.js'

/** One connection on its way through its session's queue. */
interface Replay {
  /** Set when a live message was kept back since the queue was last read. */
  missed: boolean
  done: boolean
  /** Messages that were handed out, and those of them that are being written. */
  handedOut: number
  updated: number
  onUpdate: (() => void) | undefined
  last: { brokerId: string; brokerCounter: number } | undefined
}

/**
 * Keeps the order of a session's messages when its client comes back: first the queue, to its very end, and only then
 * what is published now.
 *
 * Aedes subscribes a returning client before it sends CONNACK and the queue, so that new messages overtake old ones,
 * some come twice, and one may even come before CONNACK [MQTT-3.2.0-1]. Here a live message of QoS 1 or 2 for such a
 * client is kept back. It is in the queue already, and the queue is read again until nothing was kept back meanwhile.
 */
export class SessionQueueReplay {
  readonly #queueReplay = new WeakMap<object, Replay>()
  readonly #read: (client: Client) => AsyncIterable<AedesPublishPacket>
  readonly #idsOf: (client: Client) => Pick<PacketIds, 'take' | 'takeNext'>

  /**
   * @param read the session's queue as it is now
   * @param idsOf the packet identifiers of messages to a client
   */
  constructor(
    read: (client: Client) => AsyncIterable<AedesPublishPacket>,
    idsOf: (client: Client) => Pick<PacketIds, 'take' | 'takeNext'>,
  ) {
    this.#read = read
    this.#idsOf = idsOf
  }

  /** The queue for `client`, and what is added to it while it is being sent. */
  async *queue(client: Client): AsyncGenerator<AedesPublishPacket> {
    const replay: Replay = {
      missed: false,
      done: false,
      handedOut: 0,
      updated: 0,
      onUpdate: undefined,
      last: undefined,
    }
    this.#queueReplay.set(client, replay)
    do {
      replay.missed = false
      for await (const packet of this.#read(client)) {
        if (isSent(replay, packet)) continue
        if (packet.brokerId) replay.last = { brokerId: packet.brokerId, brokerCounter: packet.brokerCounter }
        replay.handedOut++
        yield this.#identified(client, packet)
      }
      await written(replay)
    } while (replay.missed)
    replay.done = true
  }

  /** A message with a packet identifier, which it has from an earlier connection if it was sent on that [MQTT-3.3.1-1]; or a PUBREL. */
  #identified(client: Client, packet: AedesPublishPacket): AedesPublishPacket {
    const ids = this.#idsOf(client)
    const awaited = packet.cmd === 'publish' ? firstAcknowledgement(packet.qos) : 'pubcomp'
    if (!packet.messageId) return { ...packet, messageId: ids.takeNext(awaited) }
    ids.take(packet.messageId, awaited)
    return packet.cmd === 'publish' ? { ...packet, dup: true } : packet
  }

  /** Call when one of the session's messages has been noted as sent, right before it is written. */
  updated(client: object): void {
    const replay = this.#queueReplay.get(client)
    if (!replay) return
    replay.updated++
    replay.onUpdate?.()
  }

  /** Whether a live message of QoS 1 or 2 may go out to `client` now. If not, it comes with the queue, or came with it. */
  mayPass(client: Client, packet: AedesPublishPacket): boolean {
    if (client.clean) return true
    const replay = this.#queueReplay.get(client)
    if (!replay) return false
    if (!replay.done) replay.missed = true
    return replay.done && !isSent(replay, packet)
  }
}

/** The queue is ordered by broker id (they sort by start time) and counter. */
function isSent({ last }: Replay, packet: AedesPublishPacket): boolean {
  if (!last) return false
  if (packet.brokerId !== last.brokerId) return packet.brokerId < last.brokerId
  return packet.brokerCounter <= last.brokerCounter
}

/** Streams on the way read ahead: waits until what was handed out has been written. */
async function written(replay: Replay): Promise<void> {
  while (replay.updated < replay.handedOut) {
    await new Promise<void>(resolve => {
      replay.onUpdate = resolve
    })
  }
  await turn()
}
