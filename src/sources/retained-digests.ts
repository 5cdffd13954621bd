import { createHash } from 'node:crypto'
import type { Journal } from '../journal/journal.js'

export type Digests = Map<string, string>

export async function readDigests(
  journal: Pick<Journal, 'retained' | 'head'>,
  topics: readonly string[],
): Promise<Digests> {
  const digests: Digests = new Map()
  for await (const events of journal.retained(topics, { after: 0, through: journal.head })) {
    for (const { topic, payload } of events) digests.set(topic, digest(payload))
  }
  return digests
}

/** Length and SHA-256 of a payload. */
export function digest(payload: Buffer): string {
  return `${payload.length}:${createHash('sha256').update(payload).digest('base64')}`
}

/** Whether `known` is the digest of `payload`; hashes it only if the length is equal. */
export function isDigestOf(known: string | undefined, payload: Buffer): boolean {
  return known?.startsWith(`${payload.length}:`) === true && known === digest(payload)
}
