import { readFileSync } from 'node:fs'

/** Descriptors for everything but clients: databases, files, pipes, connections to brokers and webhooks. */
const reserved = 512

/** The limit of open files (`RLIMIT_NOFILE`); without one, a very large number. */
export function descriptorLimit(): number {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
    return soft === undefined ? Number.MAX_SAFE_INTEGER : Number(soft)
  } catch {
    // Not Linux.
    return Number.MAX_SAFE_INTEGER
  }
}

/**
 * Client sockets for which descriptors are left.
 *
 * @param each descriptors of one client: two if its connection leads to another broker
 */
export function socketsWithin(limit: number, each: number): number {
  return Math.max(1, Math.floor((limit - Math.min(reserved, limit / 2)) / each))
}
