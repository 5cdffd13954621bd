import { readFileSync } from 'node:fs'

/** Descriptors that are no clients' sockets: the databases, files that are read, pipes, connections to brokers and webhooks. */
const reserved = 512

/** Open files that the system allows this process (`RLIMIT_NOFILE`); any number where it does not say. */
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
 * Clients' sockets that there may be at once, so that descriptors are left for everything else.
 *
 * @param each descriptors that one client takes: two where its connection leads on to a broker elsewhere
 */
export function socketsWithin(limit: number, each: number): number {
  return Math.max(1, Math.floor((limit - Math.min(reserved, limit / 2)) / each))
}
