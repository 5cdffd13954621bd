import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { Ending } from '../endings.js'
import type { Transport } from '../metrics.js'

/** The client's side of a tunnel: a byte stream, why the client left, and a way to say why the gateway leaves. */
export interface Client {
  readonly transport: Transport
  /** The MQTT bytes, both ways. */
  readonly stream: Duplex
  /** Set by the tunnel: called once, when the client will send no more, before the reading side ends. */
  onEnd: (ending: Ending) => void
  /** What waits in memory for either side, in bytes. */
  readonly bufferedBytes: number
  /** Ends the writing side: what was written is flushed, then the client is told `ending`, where its transport can. */
  finish(ending: Ending): void
  /** Asks the client for a sign of life, on a transport that has such a thing. */
  ping?(): void
  /** Grows with every sign of life: bytes that came, and bytes that were waiting and that the client took. */
  readonly signsOfLife?: number
}

/** A client on the plain MQTT port. Its socket has to be half-open capable (`allowHalfOpen`). */
export class TcpClient implements Client {
  readonly transport = 'tcp'
  readonly stream: Socket
  onEnd: (ending: Ending) => void = () => {}

  constructor(socket: Socket) {
    this.stream = socket
    // An MQTT client's way to leave is to close the connection (MQTT 3.1.1 §3.14.4): no FIN is abnormal here.
    socket.on('end', () => this.onEnd(new Ending('client-closed')))
    socket.on('error', (error: Error) => this.onEnd(new Ending('client-reset', { cause: error })))
  }

  get bufferedBytes(): number {
    return this.stream.readableLength + this.stream.writableLength
  }

  finish(): void {
    this.stream.end()
  }
}
