import type { ChildProcess } from 'node:child_process'

/** Connections that are remembered for each worker: more than listeners, each of which passes one at a time. */
const maxRemembered = 64

/** A connection that this process has accepted. */
interface Connection {
  /** Has no effect on a closed one. */
  close(): void
}

/**
 * Closes connections that were on their way to a worker when it ended: `cluster` waits for its answer, and keeps them open for ever, so that their clients wait, too. A connection
 * that a worker has taken is closed in this process.
 */
export class PassedConnections {
  /** The last worker to which a connection was passed. */
  readonly #workers = new WeakMap<Connection, ChildProcess>()

  /** Remembers the connections that are passed to a worker. @returns closes those that it has not taken */
  watch(worker: ChildProcess): () => void {
    const passed: Connection[] = []
    const { send } = worker
    worker.send = (...parameters: unknown[]) => {
      const [, handle] = parameters
      if (isConnection(handle)) {
        this.#workers.set(handle, worker)
        passed.push(handle)
        if (passed.length > maxRemembered) passed.shift()
      }
      return Reflect.apply(send, worker, parameters)
    }
    return () => {
      for (const connection of passed) if (this.#workers.get(connection) === worker) connection.close()
    }
  }
}

function isConnection(handle: unknown): handle is Connection {
  return typeof handle === 'object' && handle !== null && 'close' in handle && typeof handle.close === 'function'
}
