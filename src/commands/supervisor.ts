import { createLog, type Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import { internalPeer } from '../broker/broker.js'
import { createUpstream } from '../broker/upstream/upstream.js'
import { UsageError } from '../config/flags.js'
import { upstreamAt } from '../config/schema.js'
import { Delivery } from '../integrations/supervisord/delivery.js'
import { ProtocolError } from '../integrations/supervisord/event-reader.js'
import { listen } from '../integrations/supervisord/listener.js'
import { readSupervisorOptions, type SupervisorOptions } from '../integrations/supervisord/options.js'
import { StatePublisher } from '../integrations/supervisord/state-publisher.js'
import { ConnectionRefusal } from '../mqtt/broker-responses.js'
import { Connection } from '../mqtt/connection.js'
import { mqtt5, type ProtocolProfile, plain } from '../mqtt/protocol-profile.js'
import { randomClientId } from '../sources/mqtt/client-id.js'

/** Timeout of opening a connection, and of CONNACK, in milliseconds. */
const connectTimeout = 5000
/** In seconds. */
const keepAlive = 30
/** How long a pending event may take after a stop, in milliseconds. supervisord waits for 10 s. */
const stopTimeout = 1000

/**
 * `mqway supervisor`: an event listener of supervisord that publishes the states of its processes. Standard output is for supervisord,
 * logs go to standard error.
 *
 * @returns exit code 0 when supervisord closes the pipe or stops it; 1 for a protocol error of supervisord; 2 for an invalid option; 69
 *   for an unusable certificate file
 */
export async function supervisor(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  try {
    const options = readSupervisorOptions(argv, env, process.cwd())
    if (process.stdin.isTTY) throw new UsageError('is started by supervisord; see mqway supervisor --help')
    await run(options)
    return 0
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof StartError || error instanceof ProtocolError)) throw error
    process.stderr.write(`mqway supervisor: ${error.message}\n`)
    if (error instanceof StartError) return error.exitCode
    return error instanceof UsageError ? 2 : 1
  }
}

async function run(options: SupervisorOptions): Promise<void> {
  const log = createLog({ level: 'info', format: process.stderr.isTTY ? 'pretty' : 'json' }, process.stderr)
  const upstream = createUpstream({ ...upstreamAt(options.url), ...options.files, connectTimeout }, log)
  const connect = connector(options, () => upstream.open(internalPeer))
  const states = new StatePublisher({
    prefix: options.topic,
    deliver: make => delivery.deliver(make),
    warn: text => log.warn(text),
  })
  const onConnected = (): void => states.forgetRetained()
  const delivery = new Delivery({ connect, onConnected, timeout: options.timeout, log })
  const stop = watchStop(log, () => {
    setTimeout(() => delivery.close(), stopTimeout).unref()
    // Ends the wait for the next event.
    process.stdin.destroy()
  })
  try {
    await listen({
      input: process.stdin,
      write: text => process.stdout.write(text),
      handle: event => states.publish(event),
      stopped: () => stop.stopped,
    })
  } catch (error) {
    if (!stop.stopped) throw error
  } finally {
    stop.close()
    process.stdin.destroy()
    await delivery.close()
    await upstream.close()
  }
}

/**
 * Calls `onStop` once: on a signal, when supervisord closes the pipe, or when it does not read responses. Also while an event waits for
 * the broker, as its state may differ under the next supervisord.
 */
function watchStop(log: Logger, onStop: () => void): { readonly stopped: boolean; close(): void } {
  const watch = {
    stopped: false,
    close: () => {
      process.off('SIGTERM', stop).off('SIGINT', stop)
      process.stdin.off('readable', onReadable).off('end', onEnd)
      process.stdout.off('error', onUnread)
    },
  }
  const end = (why: string): void => {
    if (watch.stopped) return
    watch.stopped = true
    log.info(`stopping: ${why}`)
    onStop()
  }
  const stop = (signal: NodeJS.Signals): void => end(signal)
  const onUnread = (error: Error): void => end(`cannot write responses to supervisord (${error.message})`)
  const onEnd = (): void => end('supervisord has closed its side')
  // At the end of the stream, `readable` comes without data; `end` would wait for a read.
  const onReadable = (): void => {
    if (process.stdin.readableLength === 0) onEnd()
  }
  process.on('SIGTERM', stop).on('SIGINT', stop)
  process.stdin.on('readable', onReadable).on('end', onEnd)
  process.stdout.on('error', onUnread)
  return watch
}

/** Connects with MQTT 5, which has reason codes, or with MQTT 3.1.1 if the broker does not support it. */
function connector(
  { username, password }: SupervisorOptions,
  open: () => ReturnType<ReturnType<typeof createUpstream>['open']>,
): () => Promise<Connection> {
  // supervisord may start several event listeners.
  const clientId = randomClientId()
  const attempt = async (profile: ProtocolProfile): Promise<Connection> => {
    const stream = await open()
    return Connection.connect({
      stream,
      profile,
      clientId,
      clean: true,
      username,
      password,
      keepAlive,
      connectTimeout,
    })
  }
  let profile = mqtt5
  return async () => {
    try {
      return await attempt(profile)
    } catch (error) {
      if (profile === plain || !(error instanceof ConnectionRefusal && error.mayBeProfile)) throw error
      const connection = await attempt(plain)
      profile = plain
      return connection
    }
  }
}
