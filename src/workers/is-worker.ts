import cluster from 'node:cluster'

/** The variable of the environment by which a process knows that it is a worker. */
export const workerVariable = 'MQWAY_WORKER'

/** Whether this process was started as a worker. */
export function isWorker(env: NodeJS.ProcessEnv): boolean {
  return cluster.isWorker && env[workerVariable] !== undefined
}
