import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** What a system under test is started with. */
export interface Setup {
  /** An empty directory of its own. */
  readonly directory: string
  readonly tls: boolean
  /** PEM files for TLS. */
  readonly certificate: { readonly cert: string; readonly key: string }
  /** Port of loopback to lead to; brokers have none. */
  readonly upstreamPort: number
  /** A Unix socket to lead to instead. */
  readonly upstreamSocket?: string
  /** A Redis for the system. */
  readonly redisUrl?: string
  /** Set where the system is started twice: the port of both times. Keys of TLS session tickets are kept in `directory`. */
  readonly restart?: { readonly port: number }
  /** Whether MQTT is spoken, or just bytes. */
  readonly speaksMqtt: boolean
}

/** A system that is ready. */
export interface Running {
  /** On loopback. */
  readonly port: number
  /** Every process whose processor time counts. */
  readonly pids: readonly number[]
  /** Full garbage collections since the start, where it has a collector. */
  fullCollections?(): Promise<number>
  stop(): Promise<void>
}

/** How messages go in and out over HTTP; paths of the system, with their queries. */
export interface PushPaths {
  readonly publish: string
  /** Server-Sent Events. */
  readonly stream: string
  readonly poll: string
  /** How the next poll says where to go on: see native/push.h. */
  readonly cursor: 'body' | 'validators'
}

/** Something that can be measured. Each implementation has a file of its own. */
export interface System {
  readonly name: string
  /** How the load generator talks to it: `websocket`, or `relay` to send the same frames without a handshake. */
  readonly speaks: 'websocket' | 'relay'
  readonly hasTls: boolean
  /** None where it does not push. */
  readonly push?: PushPaths
  /** What it needs and this machine does not have. */
  missing(): string | undefined
  start(setup: Setup): Promise<Running>
}

/** Names the first program or file that is not there. */
export function missingOf(...needed: readonly string[]): string | undefined {
  return needed.find(name => !isThere(name))
}

function isThere(name: string): boolean {
  const directories = name.startsWith('/') ? [''] : [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin']
  return directories.some(directory => {
    try {
      accessSync(join(directory, name), name.startsWith('/') ? constants.R_OK : constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
