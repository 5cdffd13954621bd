import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { timeLimit } from '../base/time-limit.js'
import { ConnectionRefusal } from '../mqtt/broker-responses.js'
import { Connection } from '../mqtt/connection.js'
import { plain } from '../mqtt/protocol-profile.js'
import { type Broker, internalPeer } from './broker.js'

export interface ProbeOptions {
  /** Time limit in milliseconds. Default: 2000. */
  readonly timeout?: number | undefined
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** Aborts the probe. */
  readonly signal?: AbortSignal | undefined
}

/**
 * Makes one MQTT round trip through `broker`: CONNECT, CONNACK, PINGREQ, PINGRESP, DISCONNECT. Without credentials, a refusal for lack of them
 * counts as success.
 *
 * @returns the duration in milliseconds
 * @throws {Error} with a readable reason, within the timeout
 */
export async function probeBroker(broker: Broker, options: ProbeOptions = {}): Promise<number> {
  const { timeout = 2000, username, password } = options
  const limit = timeLimit(timeout, options.signal)
  const { signal } = limit
  const start = performance.now()
  const opening = broker.open(internalPeer)
  let stream: Duplex | undefined
  try {
    stream = await orAbort(opening, signal)
    const clientId = `mqway-readyz-${randomUUID()}`
    const session = { clientId, clean: true, username, password, keepAlive: 30, connectTimeout: timeout }
    const connection = await orAbort(Connection.connect({ stream, profile: plain, ...session }), signal)
    await orAbort(connection.ping(), signal)
    const duration = performance.now() - start
    await connection.end()
    return duration
  } catch (error) {
    if (limit.isOver) throw new Error(`The broker did not answer within ${timeout} ms`, { cause: error })
    if (!(error instanceof ConnectionRefusal)) throw error
    if (error.isOfLogin && username === undefined) return performance.now() - start
    const options = error.isOfLogin ? ' (broker.username, broker.password)' : ''
    throw new Error(`The broker did not accept the connection: ${error.message}${options}`, { cause: error })
  } finally {
    limit.end()
    if (stream) stream.destroy()
    else opening.then(late => late.destroy(), ignore)
  }
}

/** Settles as `promise`, or rejects with the signal's reason first. */
async function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  // It may reject after the signal.
  promise.catch(ignore)
  signal.throwIfAborted()
  let onAbort = ignore
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function ignore(): void {}
