import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { generate, type Packet, parser } from 'mqtt-packet'
import { explainConnectError, silenceHint } from '../base/connect-errors.js'
import { type Broker, internalPeer } from './broker.js'

export interface ProbeOptions {
  /** Time limit in milliseconds. Default: 2000. */
  readonly timeout?: number | undefined
  readonly username?: string | undefined
  readonly password?: string | undefined
  /** Aborts the probe. */
  readonly signal?: AbortSignal | undefined
}

/** Return codes of CONNACK (MQTT 3.1.1, table 3.1). */
const refusals: Readonly<Record<number, string>> = {
  1: 'it does not speak MQTT 3.1.1',
  2: 'it does not accept the client id',
  3: 'it says that its service is unavailable',
  4: 'it does not accept the user name or password (broker.username, broker.password)',
  5: 'it does not authorize the probe (broker.username, broker.password)',
}

/**
 * Makes one MQTT round trip through `broker`: CONNECT, CONNACK, PINGREQ, PINGRESP, DISCONNECT. Without credentials, a refusal for lack of them
 * counts as success.
 *
 * @returns the duration in milliseconds
 * @throws {Error} with a readable reason, within the timeout
 */
export async function probeBroker(broker: Broker, options: ProbeOptions = {}): Promise<number> {
  const timeout = options.timeout ?? 2000
  const limit = AbortSignal.timeout(timeout)
  const signal = options.signal ? AbortSignal.any([limit, options.signal]) : limit
  const start = performance.now()
  const opening = broker.open(internalPeer)
  let stream: Duplex | undefined
  try {
    stream = await orAbort(opening, signal)
    await exchange(stream, options, signal)
  } catch (error) {
    if (limit.aborted) throw new Error(`The broker did not answer within ${timeout} ms`, { cause: error })
    throw error
  } finally {
    if (stream) stream.destroy()
    else opening.then(late => late.destroy(), ignore)
  }
  return performance.now() - start
}

async function exchange(stream: Duplex, options: ProbeOptions, signal: AbortSignal): Promise<void> {
  const { username, password } = options
  const done = new Promise<void>((resolve, reject) => {
    const incoming = parser()
    incoming.on('packet', (packet: Packet) => {
      if (packet.cmd === 'connack') {
        const code = packet.returnCode ?? 0
        const unauthorized = code === 4 || code === 5
        if (code === 0) stream.write(generate({ cmd: 'pingreq' }))
        else if (unauthorized && username === undefined) resolve()
        else reject(new Error(`The broker refused the connection: ${refusals[code] ?? `return code ${code}`}`))
      } else if (packet.cmd === 'pingresp') {
        stream.end(generate({ cmd: 'disconnect' }))
        resolve()
      }
    })
    incoming.on('error', error => reject(new Error('What answers does not speak MQTT', { cause: error })))
    stream.on('data', (chunk: Buffer) => {
      if (isTlsAlert(chunk)) reject(new Error(`What answers speaks TLS: ${silenceHint(false)}`))
      else incoming.parse(chunk)
    })
    let hint = `; ${silenceHint('encrypted' in stream)}`
    stream.once('data', () => {
      hint = ''
    })
    stream.on('error', error => {
      const text = `The connection to the broker was lost: ${explainConnectError(error)}${hint}`
      reject(new Error(text, { cause: error }))
    })
    stream.on('end', () => {
      reject(new Error(`The broker closed the connection without an answer; ${silenceHint('encrypted' in stream)}`))
    })
  })
  stream.write(
    generate({
      cmd: 'connect',
      clientId: `mqway-readyz-${randomUUID()}`,
      clean: true,
      keepalive: 30,
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password: Buffer.from(password) }),
    }),
  )
  await orAbort(done, signal)
}

/** Whether bytes are a TLS alert (RFC 8446 §5.1), a TLS server's response to other protocols. MQTT servers send no packets of type 1. */
function isTlsAlert(chunk: Buffer): boolean {
  return chunk[0] === 21 && chunk[1] === 3
}

/** Settles as `promise`, or rejects with the signal's reason first. */
async function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
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
