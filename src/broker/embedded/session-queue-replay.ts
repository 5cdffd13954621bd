import type { AedesPublishPacket, Client } from 'aedes'

/** Progress of one connection through its session's queue. */
interface Replay {
  /** Whether a live message was held back since the queue was last read. */
  missed: boolean
  isDone: boolean
  isRunning: boolean
  /** The last message sent. */
  last: { readonly brokerId: string; readonly brokerCounter: number } | undefined
}

/**
 * Keeps the order of a session's messages: those in its queue first, then live messages.
 *
 * Live messages of QoS 1 or 2 are in the queue, too. They are held back while the queue is sent, to a returning client, or to one that has as
 * many messages as it takes without acknowledgement. The queue is read again until no message was held back meanwhile.
 */
export class SessionQueueReplay {
  readonly #replays = new WeakMap<object, Replay>()
  readonly #read: (client: Client) => AsyncIterable<AedesPublishPacket>

  /** @param read reads the session's queue */
  constructor(read: (client: Client) => AsyncIterable<AedesPublishPacket>) {
    this.#read = read
  }

  /**
   * Sends what is in the queue and not sent yet on this connection.
   *
   * @param send sends a message or a PUBREL; resolves to false where the connection is closed
   */
  async run(client: Client, send: (packet: AedesPublishPacket) => Promise<boolean>): Promise<void> {
    const replay = this.#of(client)
    if (replay.isRunning) return
    replay.isRunning = true
    try {
      do {
        replay.missed = false
        for await (const packet of this.#read(client)) {
          if (isSent(replay, packet)) continue
          note(replay, packet)
          if (!(await send(packet))) return
        }
      } while (replay.missed)
      replay.isDone = true
    } finally {
      replay.isRunning = false
    }
  }

  #of(client: Client): Replay {
    let replay = this.#replays.get(client)
    if (!replay) {
      replay = { missed: false, isDone: false, isRunning: false, last: undefined }
      this.#replays.set(client, replay)
    }
    return replay
  }

  /** Whether a live message of QoS 1 or 2 may be sent to `client` now; otherwise it is sent with the queue. */
  mayPass(client: Client, packet: AedesPublishPacket): boolean {
    if (client.clean) return true
    const replay = this.#replays.get(client)
    if (!replay) return false
    if (!replay.isDone) replay.missed = true
    return replay.isDone && !isSent(replay, packet)
  }

  /** Call when a live message of QoS 1 or 2 is sent to `client`. */
  passed(client: Client, packet: AedesPublishPacket): void {
    note(this.#of(client), packet)
  }

  /** Holds live messages back from now on; they are sent by the next `run`. */
  holdBack(client: Client): void {
    const replay = this.#of(client)
    replay.isDone = false
    replay.missed = true
  }
}

function note(replay: Replay, { brokerId, brokerCounter }: AedesPublishPacket): void {
  if (brokerId) replay.last = { brokerId, brokerCounter }
}

/** The queue is ordered by broker id, which sorts by start time, and counter. */
function isSent({ last }: Replay, packet: AedesPublishPacket): boolean {
  if (!last) return false
  if (packet.brokerId !== last.brokerId) return packet.brokerId < last.brokerId
  return packet.brokerCounter <= last.brokerCounter
}
