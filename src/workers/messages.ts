import type { ClientList, ClientListQuery, ClientsEnd, FoundClients, WantedClients } from '../base/client-directory.js'
import type { MetricValues } from '../base/metrics.js'
import type { Config } from '../config/schema.js'
import type { StateBounds, StateChange, StateRecord, Usage, UsageReport } from '../storage/shared-state.js'

/** What a worker is started with. */
export interface WorkerStart {
  /** From 1 on; a worker that replaces another one has its number. */
  readonly worker: number
  /** Number of workers. */
  readonly workers: number
  readonly config: Config
  /** The configuration file, if there is one. */
  readonly file: string | undefined
}

/** Counts that hold over all workers: connections and users by `ConnectionLimits` and `UserLimits`, sockets by `SocketLimits`. */
export const countNames = ['connections', 'users', 'sockets'] as const
export type CountName = (typeof countNames)[number]

/** A count of one worker. */
export type OwnCount = readonly [key: string, count: number]

/** Counts of one worker that have changed. */
export type OwnCounts = Readonly<Partial<Record<CountName, readonly OwnCount[]>>>

/** The counts of one key, as the primary process knows them: of this worker, and of the others together. */
export type KnownCount = readonly [key: string, own: number, others: number]

/** Counts that have changed, of this worker or of others. */
export type KnownCounts = Readonly<Partial<Record<CountName, readonly KnownCount[]>>>

/** Messages without an answer, by kind. */
export interface Notices {
  // To a worker.
  /** A reload was refused, because the configuration is invalid. */
  reloadRefused: undefined
  /** With the grace time in milliseconds. */
  stop: number
  knownCounts: KnownCounts
  // To the primary process.
  /** The worker serves, at these URLs. */
  ready: readonly string[]
  /** The worker cannot start, for this reason. */
  failed: string
  ownCounts: OwnCounts
}

/** The key of TLS session tickets, and when it was made, in milliseconds since 1970. */
export interface TicketKey {
  readonly bytes: Uint8Array
  readonly created: number
}

interface EntryOf {
  readonly name: string
  readonly bounds: StateBounds
  readonly key: string
}

interface EntryChange extends EntryOf {
  readonly version: string
  readonly change: StateChange | undefined
}

export interface Renewal {
  /** Id of the connection. */
  readonly connection: string
  readonly ticket: string
}

/** Questions of one worker to the others, which the primary process passes on. */
export interface WorkerQuestions {
  // As `ClientDirectory`.
  listClients: { readonly body: ClientListQuery; readonly answer: ClientList }
  findClients: { readonly body: WantedClients; readonly answer: FoundClients }
  endClients: { readonly body: ClientsEnd; readonly answer: FoundClients }
  /** Gives an event stream or a socket the identity of a ticket. */
  renewConnection: { readonly body: Renewal; readonly answer: 'absent' | 'refused' | 'renewed' }
}

export type WorkerQuestionKind = keyof WorkerQuestions

export interface RelayedQuestion {
  readonly kind: WorkerQuestionKind
  readonly body: Body<WorkerQuestionKind>
}

export interface RelayedAnswers<T> {
  readonly answers: readonly T[]
  /** Number of workers that have not answered. */
  readonly missing: number
}

/** Messages with an answer, by kind. */
export interface Questions extends WorkerQuestions {
  // To a worker.
  metrics: { readonly body: undefined; readonly answer: MetricValues }
  /** As `Gateway.reload`. */
  reload: { readonly body: Config; readonly answer: undefined }
  /** Whether its event loop runs: it answers. */
  isRunning: { readonly body: undefined; readonly answer: true }
  // To the primary process.
  /** Asked by the worker, because a message to one that does not listen yet is lost. */
  start: { readonly body: undefined; readonly answer: WorkerStart }
  /** The metrics of all workers together. */
  allMetrics: { readonly body: undefined; readonly answer: MetricValues }
  /** The answers of the other workers to a question. */
  askOthers: { readonly body: RelayedQuestion; readonly answer: RelayedAnswers<unknown> }
  ticketKey: { readonly body: undefined; readonly answer: TicketKey }
  // As `StateCollection` and `SharedState`.
  getEntry: { readonly body: EntryOf; readonly answer: StateRecord }
  setEntry: { readonly body: EntryChange; readonly answer: string | undefined | 'full' }
  exchangeUsage: { readonly body: readonly Usage[]; readonly answer: readonly UsageReport[] }
}

export type QuestionKind = keyof Questions
export type Body<K extends QuestionKind> = Questions[K]['body']
export type Answer<K extends QuestionKind> = Questions[K]['answer']
