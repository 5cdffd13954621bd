import { createLog, type Logger } from '../base/log.js'
import { StartError } from '../base/start-error.js'
import { internalPeer } from '../broker/broker.js'
import { createUpstream } from '../broker/upstream/upstream.js'
import { upstreamAt } from '../config/schema.js'
import { Delivery } from '../integrations/supervisord/delivery.js'
import { ProtocolError } from '../integrations/supervisord/event-reader.js'
import { listen } from '../integrations/supervisord/listener.js'
import { readSupervisorOptions, type SupervisorOptions, UsageError } from '../integrations/supervisord/options.js'
import { StatePublisher } from '../integrations/supervisord/state-publisher.js'
import { ConnectionRefusal } from '../mqtt/broker-responses.js'
import { Connection } from '../mqtt/connection.js'
import { mqtt5, type ProtocolProfile, plain } from '../mqtt/protocol-profile.js'
import { randomClientId } from '../sources/mqtt/client-id.js'

/** How long the broker may take to open a connection, and then for CONNACK; in milliseconds. */
const connectTimeout = 5000
/** In seconds. */
const keepAlive = 30
/** What is under way when it is told to stop has this long, in milliseconds. supervisord waits for 10 s. */
const stopTime = 1000

/**
 * `mqway supervisor`: an event listener of supervisord, which publishes the states of its processes. Standard output is
 * for supervisord; everything else goes to standard error.
 *
 * @returns exit code 0 when supervisord closes its side, or tells it to stop; 1 when supervisord says what is not of its
 *   protocol; 2 when an option is not right; 69 when what a certificate's file holds cannot be used
 */
export async function supervisor(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  try {
    const wanted = readSupervisorOptions(argv, env, process.cwd())
    if (process.stdin.isTTY) throw new UsageError('is started by supervisord; see mqway supervisor --help')
    await run(wanted)
    return 0
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof StartError || error instanceof ProtocolError)) throw error
    process.stderr.write(`mqway supervisor: ${error.message}\n`)
    if (error instanceof StartError) return error.exitCode
    return error instanceof UsageError ? 2 : 1
  }
}

async function run(wanted: SupervisorOptions): Promise<void> {
  const log = createLog({ level: 'info', format: process.stderr.isTTY ? 'pretty' : 'json' }, process.stderr)
  const upstream = createUpstream({ ...upstreamAt(wanted.url), ...wanted.files, connectTimeout }, log)
  const connect = connector(wanted, () => upstream.open(internalPeer))
  const states = new StatePublisher({
    prefix: wanted.topic,
    deliver: make => delivery.deliver(make),
    warn: text => log.warn(text),
  })
  const onConnected = (): void => states.forgetRetained()
  const delivery = new Delivery({ connect, onConnected, timeout: wanted.timeout, log })
  const stop = watchStop(log, () => {
    setTimeout(() => delivery.close(), stopTime).unref()
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
 * Notices, once, that it is over: a signal has come, supervisord has closed its side, or nobody reads what it should. It
 * is noticed while an event waits for the broker, too: its state may be another one under the next supervisord.
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
  const onUnread = (error: Error): void => end(`nobody reads the answers (${error.message})`)
  const onEnd = (): void => end('supervisord has closed its side')
  // With nothing to read, it is the end: `end` itself waits until somebody reads.
  const onReadable = (): void => {
    if (process.stdin.readableLength === 0) onEnd()
  }
  process.on('SIGTERM', stop).on('SIGINT', stop)
  process.stdin.on('readable', onReadable).on('end', onEnd)
  process.stdout.on('error', onUnread)
  return watch
}

/** MQTT 5 says what it refuses; a broker that does not speak it gets MQTT 3.1.1. */
function connector(
  { username, password }: SupervisorOptions,
  open: () => ReturnType<ReturnType<typeof createUpstream>['open']>,
): () => Promise<Connection> {
  // supervisord may have several of its kind.
  const clientId = randomClientId()
  const attempt = async (dialect: ProtocolProfile): Promise<Connection> => {
    const stream = await open()
    return Connection.connect({
      stream,
      profile: dialect,
      clientId,
      clean: true,
      username,
      password,
      keepAlive,
      connectTimeout,
    })
  }
  let dialect = mqtt5
  return async () => {
    try {
      return await attempt(dialect)
    } catch (error) {
      if (dialect === plain || !(error instanceof ConnectionRefusal && error.mayBeProfile)) throw error
      const connection = await attempt(plain)
      dialect = plain
      return connection
    }
  }
}
