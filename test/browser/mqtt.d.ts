/** The part of MQTT.js that the page uses, for the type check of `public/` (tsconfig.json in this folder). */
declare namespace mqtt {
  interface Properties {
    payloadFormatIndicator?: boolean | number
    messageExpiryInterval?: number
    contentType?: string
    responseTopic?: string
    correlationData?: Uint8Array
    userProperties?: Record<string, string | string[]>
    reasonString?: string
  }

  interface Packet {
    cmd: string
    messageId?: number
    reasonCode?: number
    properties?: Properties
  }

  interface PublishPacket extends Packet {
    qos: 0 | 1 | 2
    retain: boolean
    dup: boolean
  }

  /** `code` of a refusal: the return code of MQTT 3, or the reason code of MQTT 5. */
  interface ClientError extends Error {
    code?: number
  }

  interface Client {
    readonly connected: boolean
    on(event: 'connect' | 'close', listener: () => void): Client
    on(event: 'error', listener: (error: ClientError) => void): Client
    on(event: 'message', listener: (topic: string, payload: Uint8Array, packet: PublishPacket) => void): Client
    on(event: 'packetreceive' | 'disconnect', listener: (packet: Packet) => void): Client
    end(force: boolean): void
    publish(
      topic: string,
      payload: string,
      options: { qos: 0 | 1 | 2; retain: boolean; properties?: Properties },
      done: (error?: ClientError | null, packet?: Packet) => void,
    ): void
    subscribe(
      filter: string,
      options: { qos: 0 | 1 | 2 },
      done: (error: ClientError | null, granted?: { qos: number }[], packet?: Packet & { granted?: number[] }) => void,
    ): void
    unsubscribe(filter: string, done: () => void): void
  }

  function connect(
    url: string,
    options: {
      protocolVersion: 3 | 4 | 5
      protocolId: 'MQTT' | 'MQIsdp'
      clientId: string
      clean: boolean
      keepalive: number
      connectTimeout: number
      reconnectPeriod: 0
      resubscribe: false
      timerVariant: 'native'
      username?: string
      password?: string
    },
  ): Client
}
