import { setImmediate as nextTick } from 'node:timers/promises'
import type { AedesPublishPacket, Client } from 'aedes'
import { firstAcknowledgement, type PacketIds } from './packet-ids.js'

/** Progress of one connection through its session's queue. */
interface Replay {
  /** Whether a live message was held back since the queue was last read. */
  missed: boolean
  done: boolean
  /** Messages sent from the queue, and those of them whose identifier is stored. */
  sent: number
  updated: number
  onUpdate: (() => void) | undefined
  last: { brokerId: string; brokerCounter: number } | undefined
}

/**
 * Keeps the order of a session's messages when its client returns: the whole queue first, then live messages.
 *
 * Aedes subscribes a returning client before it sends CONNACK and the queue, so that live messages overtake queued ones, are sent twice, or precede
 * CONNACK [MQTT-3.2.0-1]. Here a live message of QoS 1 or 2 is held back for such a client. It is in the queue, which is read again
 * until no message was held back meanwhile.
 */
export class SessionQueueReplay {
  readonly #replays = new WeakMap<object, Replay>()
  readonly #read: (client: Client) => AsyncIterable<AedesPublishPacket>
  readonly #idsOf: (client: Client) => Pick<PacketIds, 'take' | 'takeNext'>

  /**
   * @param read reads the session's queue
   * @param idsOf packet identifiers of messages to a client
   */
  constructor(
    read: (client: Client) => AsyncIterable<AedesPublishPacket>,
    idsOf: (client: Client) => Pick<PacketIds, 'take' | 'takeNext'>,
  ) {
    this.#read = read
    this.#idsOf = idsOf
  }

  /** The queue for `client`, with the messages added meanwhile. */
  async *queue(client: Client): AsyncGenerator<AedesPublishPacket> {
    const replay: Replay = {
      missed: false,
      done: false,
      sent: 0,
      updated: 0,
      onUpdate: undefined,
      last: undefined,
    }
    this.#replays.set(client, replay)
    do {
      replay.missed = false
      for await (const packet of this.#read(client)) {
        if (isSent(replay, packet)) continue
        if (packet.brokerId) replay.last = { brokerId: packet.brokerId, brokerCounter: packet.brokerCounter }
        replay.sent++
        yield this.#identified(client, packet)
      }
      await written(replay)
    } while (replay.missed)
    replay.done = true
  }

  /** A message with its packet identifier of an earlier connection [MQTT-3.3.1-1], or a new one; or a PUBREL. */
  #identified(client: Client, packet: AedesPublishPacket): AedesPublishPacket {
    const ids = this.#idsOf(client)
    const awaited = packet.cmd === 'publish' ? firstAcknowledgement(packet.qos) : 'pubcomp'
    if (!packet.messageId) return { ...packet, messageId: ids.takeNext(awaited) }
    ids.take(packet.messageId, awaited)
    return packet.cmd === 'publish' ? { ...packet, dup: true } : packet
  }

  /** Call when the packet identifier of a message is stored, before the message is written. */
  updated(client: object): void {
    const replay = this.#replays.get(client)
    if (!replay) return
    replay.updated++
    replay.onUpdate?.()
  }

  /** Whether a live message of QoS 1 or 2 may be sent to `client` now; otherwise it is sent with the queue. */
  mayPass(client: Client, packet: AedesPublishPacket): boolean {
    if (client.clean) return true
    const replay = this.#replays.get(client)
    if (!replay) return false
    if (!replay.done) replay.missed = true
    return replay.done && !isSent(replay, packet)
  }
}

/** The queue is ordered by broker id, which sorts by start time, and counter. */
function isSent({ last }: Replay, packet: AedesPublishPacket): boolean {
  if (!last) return false
  if (packet.brokerId !== last.brokerId) return packet.brokerId < last.brokerId
  return packet.brokerCounter <= last.brokerCounter
}

/** Resolves when the sent messages are written: streams read ahead. */
async function written(replay: Replay): Promise<void> {
  while (replay.updated < replay.sent) {
    await new Promise<void>(resolve => {
      replay.onUpdate = resolve
    })
  }
  await nextTick()
}
