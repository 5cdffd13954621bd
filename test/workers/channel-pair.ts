import { EventEmitter } from 'node:events'
import { Channel } from '../../src/workers/channel.js'

/** An end of a channel within the process; messages arrive in later iterations of the event loop. */
class Port extends EventEmitter {
  other: Port | undefined

  send(message: object, _handle: undefined, _options: undefined, sent: (error: Error | null) => void): boolean {
    const copy = structuredClone(message)
    setImmediate(() => {
      this.other?.emit('message', copy)
      sent(null)
    })
    return true
  }
}

/** Both ends of a channel: that of the primary process, and that of a worker. */
export function channelPair(): { readonly primary: Channel; readonly worker: Channel } {
  const [a, b] = [new Port(), new Port()]
  a.other = b
  b.other = a
  return { primary: new Channel(a), worker: new Channel(b) }
}
