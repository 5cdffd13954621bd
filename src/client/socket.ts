import { Failure, failureOf } from './failure.js'
import type { Carrier, SendRequest } from './link.js'

interface Waiting {
  resolve(result: unknown): void
  reject(failure: Failure): void
}

/** Events over the WebSocket at `/v1/socket`, and requests in the other direction. */
export const carryBySocket: Carrier = async link => {
  const socket = new WebSocket(await link.socketUrl('v1/socket', link.query()))
  const waiting = new Map<number, Waiting>()
  const lost = new Failure()
  let opened = false
  let last = 0
  const sendRequest: SendRequest = message =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject })
      socket.send(JSON.stringify({ ...message, ref: last }))
    })
  try {
    return await new Promise<never>((_resolve, reject) => {
      socket.onopen = () => {
        opened = true
      }
      socket.onclose = socket.onerror = link.signal.onabort = () => reject(lost)
      if (link.signal.aborted) reject(lost)
      socket.onmessage = ({ data }) => {
        try {
          const { type, ref, ...message } = JSON.parse(data)
          link.onMessage(type, message, sendRequest)
          const request = waiting.get(ref)
          waiting.delete(ref)
          if (type === 'ok') request?.resolve(message)
          else request?.reject(failureOf(message))
        } catch (failure) {
          reject(failure)
        }
      }
    })
  } catch (failure) {
    // Browsers hide the reason of a refused handshake; a plain request gets it (426: the handshake would be accepted).
    if (!opened) await link.fetch('v1/socket', link.query()).catch(refusal => throwUnless(426, refusal))
    throw failure
  } finally {
    socket.onmessage = null
    socket.close()
    for (const { reject } of waiting.values()) reject(lost)
  }
}

function throwUnless(status: number, failure: Failure): void {
  if (failure.status !== status) throw failure
}
