import type { Message } from '../../mqtt/message.js'
import { type ListenerEvent, parsePairs } from './event-reader.js'

/** A process has come into another state. */
export interface ProcessState {
  readonly group: string
  readonly process: string
  /** `RUNNING`, `EXITED`, `FATAL`, … */
  readonly state: string
  /** All that supervisord says of it, under its names for it, and in that order. */
  readonly details: Readonly<Record<string, unknown>>
}

/** Every state that a process can be in (supervisor/states.py). */
export const processStates = [
  'STARTING',
  'RUNNING',
  'BACKOFF',
  'STOPPING',
  'STOPPED',
  'EXITED',
  'FATAL',
  'UNKNOWN',
] as const

/** Whether an event is one of a process's state. */
export function isProcessState(eventname: string): boolean {
  return stateOf(eventname) !== undefined
}

function stateOf(eventname: string): string | undefined {
  return /^PROCESS_STATE_([A-Z]{1,40})$/.exec(eventname)?.[1]
}

/** Reads what a `PROCESS_STATE_…` event says; `undefined` where that is not which process it is about. */
export function readProcessState({ header, eventname, body }: ListenerEvent): ProcessState | undefined {
  const state = stateOf(eventname)
  const said = parsePairs(body ?? '')
  const process = said.get('processname') ?? ''
  const group = said.get('groupname') ?? ''
  if (state === undefined || process === '' || group === '') return undefined
  const details = {
    processname: process,
    groupname: group,
    state,
    from_state: said.get('from_state'),
    expected: flag(said.get('expected')),
    pid: number(said.get('pid')),
    tries: number(said.get('tries')),
    eventname,
    serial: number(header.get('serial')),
    server: header.get('server'),
    pool: header.get('pool'),
    poolserial: number(header.get('poolserial')),
  }
  return { group, process, state, details }
}

function number(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** supervisord writes 0 and 1. */
function flag(text: string | undefined): boolean | undefined {
  return text === undefined ? undefined : text !== '0'
}

/** Where the state of a process is published. */
export function stateTopic(prefix: string, { group, process }: ProcessState, state: string): string {
  return [prefix, level(group), level(process), state].join('/')
}

/**
 * A name as one level of a topic: `%`, `/`, `+`, `#`, and what a broker may end the connection for (`isHarmless`), as in a
 * URL. supervisord would send it again and again, and nothing of what comes after it.
 */
function level(name: string): string {
  return name.replace(/[%/+#\p{Cc}\p{Noncharacter_Code_Point}]/gu, character => encodeURIComponent(character))
}

/**
 * The messages that tell of a process's state: its retained message in each of `cleared` goes, and the new one comes.
 *
 * Last, because until it is acknowledged nothing of it counts: what is sent again is told twice.
 *
 * @param time when it happened, in milliseconds since 1970
 */
export function stateMessages(
  prefix: string,
  change: ProcessState,
  time: number,
  cleared: readonly string[],
): readonly Message[] {
  const own = { time: new Date(time).toISOString(), ...change.details }
  const message = (state: string, payload: Buffer): Message => {
    return { topic: stateTopic(prefix, change, state), payload, qos: 1, retain: true }
  }
  return [
    ...cleared.map(state => message(state, Buffer.alloc(0))),
    message(change.state, Buffer.from(JSON.stringify(own))),
  ]
}
