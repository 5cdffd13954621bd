/** The part of Paho that the page uses, for the type check of `public/` (tsconfig.json in this folder). */
declare namespace Paho {
  interface PahoError {
    errorCode: number
    errorMessage: string
  }

  class Message {
    constructor(payload: string | ArrayBuffer | Uint8Array)
    destinationName: string
    readonly payloadBytes: Uint8Array
    qos: 0 | 1 | 2
    retained: boolean
    readonly duplicate: boolean
  }

  class Client {
    constructor(url: string, clientId: string)
    onMessageArrived: (message: Message) => void
    onMessageDelivered: (message: Message) => void
    onConnectionLost: (error: PahoError) => void
    connect(options: {
      timeout: number
      keepAliveInterval: number
      cleanSession: boolean
      userName?: string
      password?: string
      onSuccess: () => void
      onFailure: (error: PahoError) => void
    }): void
    disconnect(): void
    isConnected(): boolean
    send(message: Message): void
    subscribe(
      filter: string,
      options: { qos: 0 | 1 | 2; onSuccess: (answer: { grantedQos: Uint8Array }) => void; onFailure: () => void },
    ): void
    unsubscribe(filter: string, options: { onSuccess: () => void }): void
  }
}
